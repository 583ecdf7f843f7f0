/* UTF-8 by the table of well-formed byte sequences (The Unicode Standard, table 3-7). */
#include "tokenizer/unicode.h"

#include <string.h>

int32_t utf8_next(const char *text, size_t size, size_t *offset)
{
    const uint8_t *at = (const uint8_t *)text + *offset;
    size_t left = size - *offset;
    *offset += 1;
    if (at[0] < 0x80) {
        return at[0];
    }
    /* The second byte's range is what excludes overlong forms, surrogates and the far end. */
    uint8_t low = 0x80;
    uint8_t high = 0xBF;
    size_t length;
    if (at[0] >= 0xC2 && at[0] <= 0xDF) {
        length = 2;
    } else if (at[0] >= 0xE0 && at[0] <= 0xEF) {
        length = 3;
        low = at[0] == 0xE0 ? 0xA0 : 0x80;
        high = at[0] == 0xED ? 0x9F : 0xBF;
    } else if (at[0] >= 0xF0 && at[0] <= 0xF4) {
        length = 4;
        low = at[0] == 0xF0 ? 0x90 : 0x80;
        high = at[0] == 0xF4 ? 0x8F : 0xBF;
    } else {
        return -1;
    }
    if (left < length || at[1] < low || at[1] > high) {
        return -1;
    }
    int32_t code = at[0] & (0xFF >> (length + 1));
    code = code << 6 | (at[1] & 0x3F);
    for (size_t i = 2; i < length; i++) {
        if (at[i] < 0x80 || at[i] > 0xBF) {
            return -1;
        }
        code = code << 6 | (at[i] & 0x3F);
    }
    *offset += length - 1;
    return code;
}

bool utf8_check(const char *text, size_t size, size_t *bad_offset)
{
    size_t offset = 0;
    while (offset < size) {
        /* Eight bytes of ASCII at a time: most text is nothing else. */
        uint64_t word;
        if (size - offset >= sizeof(word)) {
            memcpy(&word, text + offset, sizeof(word));
            if ((word & 0x8080808080808080u) == 0) {
                offset += sizeof(word);
                continue;
            }
        }
        size_t start = offset;
        if (utf8_next(text, size, &offset) < 0) {
            if (bad_offset != NULL) {
                *bad_offset = start;
            }
            return false;
        }
    }
    return true;
}
