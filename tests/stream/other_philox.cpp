/* The words of other implementations of Philox4x32-10, on the host: cuRAND's functions for kernels,
   and the engine of the C++ standard.

   Reads tasks from the standard input, and writes the four words of each block, uint32. */

#include <cstdint>
#include <cstdio>

typedef unsigned long long u64;
enum Way { BY_BLOCK, BY_ELEMENT, IN_TURN };
struct Task { u64 way, seed, stream, plane, first, blocks; };
static const u64 LOW = 0xFFFFFFFF;

#if defined CURAND

#include <cuda_runtime.h>
#include <curand_kernel.h>

typedef curandStatePhilox4_32_10_t State;

static State at(const Task &t, u64 element)
{
    State state;
    curand_init(t.seed, t.stream, element, &state);
    for (u64 plane = 0; plane < t.plane; plane++) { /* 2**64 words on, which no single offset is */
        skipahead(~0ull - 3, &state);
        skipahead(4, &state);
    }
    return state;
}

static void block_of(State &state, uint32_t *words)
{
    uint4 found = curand4(&state);
    words[0] = found.x; words[1] = found.y; words[2] = found.z; words[3] = found.w;
}

static uint32_t word_of(State &state) { return curand(&state); }

#else

#ifdef CCCL
#if !__has_include(<cuda/std/__random/philox_engine.h>)
#error "no philox_engine"
#endif
#include <cuda/std/array>
#include <cuda/std/random>
using namespace cuda::std;
#else
#include <array>
#include <random>
#ifndef __cpp_lib_philox_engine
#error "no philox_engine"
#endif
using namespace std;
#endif

typedef philox4x32 State;

struct Key /* a seed sequence that gives the two words of the key as they are */
{
    typedef uint_least32_t result_type;
    u64 seed;
    template <class To> void generate(To begin, To end)
    {
        for (int i = 0; begin != end; i++) *begin++ = (uint32_t)(seed >> 32 * i);
    }
    size_t size() const { return 2; }
    template <class To> void param(To to) const
    {
        *to++ = (uint32_t)seed;
        *to = (uint32_t)(seed >> 32);
    }
};

static State at(const Task &t, u64 element)
{
    Key key = {t.seed};
    State state(key);
    typedef State::result_type word;
    const u64 low = element >> 2 & LOW, high = element >> 34 | t.plane << 30;
    const word above = t.stream >> 32, below = t.stream & LOW;
    array<word, 4> counter = {above, below, (word)high, (word)low}; /* the most significant first */
    state.set_counter(counter);
    state.discard(element & 3);
    return state;
}

static uint32_t word_of(State &state) { return (uint32_t)state(); }

static void block_of(State &state, uint32_t *words)
{
    for (int i = 0; i < 4; i++) words[i] = word_of(state);
}

#endif

int main()
{
    Task t;
    uint32_t words[4];
    while (fread(&t, sizeof t, 1, stdin) == 1) {
        State state = at(t, 4 * t.first);
        for (u64 block = t.first; block < t.first + t.blocks; block++) {
            if (t.way == BY_BLOCK && block > t.first) state = at(t, 4 * block);
            if (t.way != BY_ELEMENT) block_of(state, words);
            else
                for (int i = 0; i < 4; i++) {
                    state = at(t, 4 * block + i);
                    words[i] = word_of(state);
                }
            fwrite(words, sizeof words, 1, stdout);
        }
    }
    return 0;
}
