/*
 * A keyed permutation of 0 .. n - 1, so that a position in the data is the whole state of the
 * order.
 *
 * A Feistel network permutes 0 .. 4^h - 1, the next power of four not below n: it splits a number
 * into halves of h bits and in each round adds (xor) a random function of one half to the other
 * (Luby and Rackoff, "How to construct pseudorandom permutations from pseudorandom functions",
 * 1988). Results of n and above go through it again until they fall below n (cycle walking: Black
 * and Rogaway, "Ciphers with arbitrary finite domains", 2002): fewer than four times on average,
 * more often below 64. The random function is Philox, keyed by the seed, with the epoch and the
 * round in its counter.
 */
#include "engine/data/order.h"

#include "kernels/random.h"

/* Four rounds suffice in theory; small halves mix better with more. */
enum { ORDER_ROUNDS = 8 };
/* A network on very few bits reaches only few permutations. */
enum { ORDER_HALF_BITS_LEAST = 4 };

static uint64_t permute(struct random_key key, unsigned half_bits, uint64_t value)
{
    uint64_t mask = ((uint64_t)1 << half_bits) - 1;
    uint64_t left = value >> half_bits;
    uint64_t right = value & mask;
    for (uint32_t round = 0; round < ORDER_ROUNDS; round++) {
        key.tensor = round;
        uint64_t mixed = left ^ (random_words(&key, right).word[0] & mask);
        left = right;
        right = mixed;
    }
    return left << half_bits | right;
}

int64_t order_of(uint64_t seed, int64_t epoch, int64_t count, int64_t index)
{
    struct random_key key = { .seed = seed, .purpose = RANDOM_ORDER, .step = (uint32_t)epoch };
    unsigned half_bits = ORDER_HALF_BITS_LEAST;
    while (half_bits < 31 && (int64_t)1 << (2 * half_bits) < count) {
        half_bits++;
    }
    uint64_t value = (uint64_t)index;
    do {
        value = permute(key, half_bits, value);
    } while (value >= (uint64_t)count);
    return (int64_t)value;
}
