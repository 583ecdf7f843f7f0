/*
 * The only C++ of the project: SentencePiece (libsentencepiece) has no C interface.
 *
 * The library ends the program where a CHECK of its own fails, which no catch can stop. What could
 * lead there is excluded before: models have passed model_check, ids are inside the vocabulary, and
 * no call is made on a model that did not load.
 */
#include "tokenizer/sentencepiece_shim.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <string>
#include <unordered_map>
#include <vector>

/* Exported by the library, but in none of its installed headers. */
namespace sentencepiece
{
namespace logging
{
void SetMinLogLevel(int level);
}
} // namespace sentencepiece

struct spm {
    sentencepiece::SentencePieceProcessor processor;
};

namespace
{

enum {
    SILENT = 3,            /* the library logs nothing below "fatal" */
    SENTENCE_BYTES = 4096, /* longest text handed to the trainer at once */
};

void say(char *why, size_t why_size, const std::string &text)
{
    std::snprintf(why, why_size, "%s", text.c_str());
}

/* Runs `work` and turns whatever it throws into a sentence and `failure`. */
template <typename Work, typename Result>
Result guarded(const Work &work, Result failure, char *why, size_t why_size) noexcept
{
    try {
        return work();
    } catch (const std::bad_alloc &) {
        std::snprintf(why, why_size, "out of memory in the tokenizer");
    } catch (const std::exception &e) {
        std::snprintf(why, why_size, "the tokenizer library failed: %s", e.what());
    } catch (...) {
        std::snprintf(why, why_size, "the tokenizer library failed");
    }
    return failure;
}

void silence()
{
    static std::once_flag once;
    std::call_once(once, [] { sentencepiece::logging::SetMinLogLevel(SILENT); });
}

/*
 * Hands out the sentences cut at line ends and tabs (the trainer drops a sentence that holds a tab)
 * and, where they are long, at spaces.
 */
class Pieces : public sentencepiece::SentenceIterator
{
  public:
    Pieces(const char *const *sentences, size_t count) : sentences_(sentences), count_(count)
    {
        rest_ = count > 0 ? sentences[0] : "";
        Next();
    }
    bool done() const override
    {
        return done_;
    }
    void Next() override
    {
        for (;;) {
            rest_ += std::strspn(rest_, "\n\r\t");
            if (*rest_ != '\0') {
                size_t length = cut(std::strcspn(rest_, "\n\r\t"));
                value_.assign(rest_, length);
                rest_ += length;
                return;
            }
            if (index_ + 1 >= count_) {
                done_ = true;
                return;
            }
            rest_ = sentences_[++index_];
        }
    }
    const std::string &value() const override
    {
        return value_;
    }
    sentencepiece::util::Status status() const override
    {
        return sentencepiece::util::Status();
    }

  private:
    size_t cut(size_t length) const
    {
        if (length <= SENTENCE_BYTES) {
            return length;
        }
        size_t end = SENTENCE_BYTES;
        while (end > SENTENCE_BYTES / 2 && rest_[end] != ' ') {
            end--;
        }
        if (rest_[end] != ' ') {
            end = SENTENCE_BYTES;
            while ((rest_[end] & 0xC0) == 0x80) {
                end--;
            }
        }
        return end;
    }

    const char *const *sentences_;
    size_t count_;
    size_t index_ = 0;
    const char *rest_ = "";
    std::string value_;
    bool done_ = false;
};

sentencepiece::util::Status train_model(const char *const *sentences, size_t count,
                                        int32_t vocabulary, std::string *model)
{
    const std::unordered_map<std::string, std::string> settings = {
        { "model_type", "bpe" },
        { "vocab_size", std::to_string(vocabulary) },
        { "byte_fallback", "true" },
        { "normalization_rule_name", "identity" },
        { "remove_extra_whitespaces", "false" },
        { "allow_whitespace_only_pieces", "true" },
        { "split_digits", "true" },
        { "character_coverage", "0.9995" },
        { "max_sentence_length", std::to_string(2 * SENTENCE_BYTES) },
        { "unk_id", "0" },
        { "bos_id", "1" },
        { "eos_id", "2" },
        { "pad_id", "-1" },
        { "num_threads", "1" },
        { "minloglevel", std::to_string(static_cast<int>(SILENT)) },
    };
    Pieces pieces(sentences, count);
    return sentencepiece::SentencePieceTrainer::Train(settings, &pieces, model);
}

/* The number after `marker` in a message of the library, or -1. */
long number_after(const std::string &message, const char *marker)
{
    size_t at = message.find(marker);
    return at == std::string::npos
               ? -1
               : std::strtol(message.c_str() + at + std::strlen(marker), nullptr, 10);
}

std::string explain_training(const std::string &message, const char *const *sentences, size_t count,
                             int32_t vocabulary)
{
    std::string start = "a vocabulary of " + std::to_string(vocabulary) + " pieces";
    long most = number_after(message, "set it to a value <= ");
    if (most >= 0) {
        /* A vocabulary of 10 fails at once and names the least. */
        std::string unused;
        long least = number_after(train_model(sentences, count, 10, &unused).ToString(),
                                  "required_chars. 10 vs ");
        std::string range = least > 0 ? std::to_string(least) + " to " : "at most ";
        return start + " is too large for this text: " + range + std::to_string(most) +
               " are possible";
    }
    std::string marker = "required_chars. " + std::to_string(vocabulary) + " vs ";
    long least = number_after(message, marker.c_str());
    if (least >= 0) {
        return start + " is too small for this text: at least " + std::to_string(least) +
               " are needed for its characters and the 256 bytes";
    }
    return start + " cannot be trained: " + message;
}

} // namespace

extern "C" {

struct spm *spm_open(const void *bytes, size_t size, char *why, size_t why_size)
{
    return guarded(
        [&]() -> struct spm * {
            silence();
            struct spm *spm = new struct spm;
            sentencepiece::util::Status status;
            try {
                status = spm->processor.LoadFromSerializedProto(
                    absl::string_view(static_cast<const char *>(bytes), size));
            } catch (...) {
                delete spm;
                throw;
            }
            if (!status.ok() || !spm->processor.status().ok()) {
                say(why, why_size, "the tokenizer library refuses it: " + status.ToString());
                delete spm;
                return nullptr;
            }
            return spm;
        },
        static_cast<struct spm *>(nullptr), why, why_size);
}

void spm_close(struct spm *spm)
{
    delete spm;
}

int32_t spm_special(const struct spm *spm, enum spm_special which)
{
    switch (which) {
    case SPM_BOS:
        return spm->processor.bos_id();
    case SPM_EOS:
        return spm->processor.eos_id();
    case SPM_UNK:
        return spm->processor.unk_id();
    case SPM_PAD:
        return spm->processor.pad_id();
    }
    return -1;
}

int spm_encode(const struct spm *spm, const char *text, size_t size, int32_t **ids, size_t *count,
               char *why, size_t why_size)
{
    return guarded(
        [&]() -> int {
            std::vector<int> found;
            auto status = spm->processor.Encode(absl::string_view(text, size), &found);
            if (!status.ok()) {
                say(why, why_size, "text cannot be encoded: " + status.ToString());
                return -1;
            }
            if (found.empty()) {
                return 0;
            }
            void *grown = std::realloc(*ids, (*count + found.size()) * sizeof(int32_t));
            if (grown == nullptr) {
                throw std::bad_alloc();
            }
            *ids = static_cast<int32_t *>(grown);
            std::memcpy(*ids + *count, found.data(), found.size() * sizeof(int32_t));
            *count += found.size();
            return 0;
        },
        -1, why, why_size);
}

char *spm_decode(const struct spm *spm, const int32_t *ids, size_t count, size_t *size, char *why,
                 size_t why_size)
{
    return guarded(
        [&]() -> char * {
            std::string text;
            auto status = spm->processor.Decode(std::vector<int>(ids, ids + count), &text);
            if (!status.ok()) {
                say(why, why_size, "ids cannot be decoded: " + status.ToString());
                return nullptr;
            }
            char *copy = static_cast<char *>(std::malloc(text.size() + 1));
            if (copy == nullptr) {
                throw std::bad_alloc();
            }
            std::memcpy(copy, text.c_str(), text.size() + 1);
            if (size != nullptr) {
                *size = text.size();
            }
            return copy;
        },
        static_cast<char *>(nullptr), why, why_size);
}

const char *spm_piece(const struct spm *spm, int32_t id)
{
    return spm->processor.IdToPiece(id).c_str();
}

int32_t spm_piece_id(const struct spm *spm, const char *piece)
{
    /* Unknown pieces get the id of `unk`: only the piece itself tells them apart. */
    int id = spm->processor.PieceToId(piece);
    return id >= 0 && spm->processor.IdToPiece(id) == piece ? id : -1;
}

void *spm_train(const char *const *sentences, size_t count, int32_t vocabulary, size_t *size,
                char *why, size_t why_size)
{
    return guarded(
        [&]() -> void * {
            silence();
            std::string model;
            auto status = train_model(sentences, count, vocabulary, &model);
            if (!status.ok()) {
                say(why, why_size,
                    explain_training(status.ToString(), sentences, count, vocabulary));
                return nullptr;
            }
            void *copy = std::malloc(model.size());
            if (copy == nullptr) {
                throw std::bad_alloc();
            }
            std::memcpy(copy, model.data(), model.size());
            *size = model.size();
            return copy;
        },
        static_cast<void *>(nullptr), why, why_size);
}

} // extern "C"
