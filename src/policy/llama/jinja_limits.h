/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Limits of a chat template that is being read or rendered.
 *
 * A template is a program out of a model file, and its engine (llama.cpp's common/jinja) has
 * no limit of its own. launch/jinja.patch lets the engine report here what it does, in
 * steps: one for a statement or expression executed, a value made or visited, and for every
 * BYTES_PER_STEP bytes of text copied. They are counted, not timed, so that a template fails
 * on every rank or on none. Nesting is bounded so that the stack is enough.
 *
 * The engine also reports where an error was met.
 */
#pragma once

#include <cstddef>
#include <exception>
#include <stdexcept>

namespace jinja::limits
{

/** Steps of one rendering. Real templates take some thousands a message. Fuzzing, where each
 *  is some twenty times slower, takes fewer (tests/fuzz). */
#ifndef MPO_JINJA_STEPS_MAX
#define MPO_JINJA_STEPS_MAX 2'000'000
#endif
constexpr size_t STEPS_MAX = MPO_JINJA_STEPS_MAX;

constexpr size_t BYTES_PER_STEP = 64;

/** Values that live at once, some 300 bytes each. */
constexpr size_t VALUES_MAX = 500'000;

/** What can be nested, and how deep. */
enum kind { SYNTAX, EXECUTION, VALUES, KIND_COUNT };
constexpr int NESTING_MAX[KIND_COUNT] = {250, 500, 200};

/** The template did more than it may. */
struct exceeded : std::exception {
    const char *reason;
    explicit exceeded(const char *words) : reason(words)
    {
    }
    const char *what() const noexcept override
    {
        return reason;
    }
};

/** The template took a member of what has no value. With other messages it may have one. */
struct missing : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/** Count anew; no place of an error is known. */
void begin();

/** Count steps. @throw exceeded */
void work(size_t steps);

/** Count text that is copied. @throw exceeded */
inline void text(size_t bytes)
{
    work(bytes / BYTES_PER_STEP);
}

/** The same of a text that is written several times. @throw exceeded */
void text_times(size_t bytes, size_t times);

/** Count values. @throw exceeded */
void value_made();
void value_gone() noexcept;

/** One level deeper while it lives. @throw exceeded */
class nesting
{
  public:
    explicit nesting(kind which);
    ~nesting();
    nesting(const nesting &) = delete;

  private:
    kind which;
};

/** Keep the place of an error, an offset in the template; the first one counts. */
void place_error(size_t place) noexcept;

/** @return false when no place was kept */
bool error_place(size_t *place) noexcept;

} // namespace jinja::limits
