/* SPDX-License-Identifier: Apache-2.0 */
#include "order.h"

#include <unordered_map>

bool mpo_llama_are_in_order(const void *const *address, size_t count)
{
    std::unordered_map<const void *, float> table;
    for (size_t i = 0; i < count; i++)
        table.insert({address[i], 1.0F});
    for (const auto &entry : table)
        if (count == 0 || entry.first != address[--count])
            return false;
    return count == 0;
}
