#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every clone of every hot loop of the mixture is vector code: the arithmetic on whole vector
# registers in each function of the object files is counted, as compilers make scalar code of
# a loop without a word.
#
#     vector_code.sh clones|none OBJECT...
#
# A clone for AVX-512 must use zmm registers, one for AVX2 ymm, the default one xmm. Exits
# with 77 where there is nothing to look at: another architecture, no objdump, a build that
# has no clones because it shall not.
set -eu

expected=$1
shift
[ "$expected" = clones ] || { echo "SKIP: a build with sanitizers has no clones"; exit 77; }
command -v objdump >/dev/null || { echo "SKIP: needs objdump"; exit 77; }
code=$(objdump -d --no-show-raw-insn "$@")
case $code in
    *elf64-x86-64*) ;;
    *) echo "SKIP: counts registers of x86-64 alone"; exit 77 ;;
esac

# loop, packed instructions that it is made of, how many of them at least: an exponential has
# 17 products. Of the maximum of doubles for SSE2 clang 14 makes scalar code, which costs a
# twentieth of the exponentials beside it.
printf '%s\n' "$code" | awk '
BEGIN {
    expect("mpo_mixture_exp_sum", "mulpd", 17)
    expect("mpo_mixture_exponentiate", "mulpd", 17)
    expect("mpo_mixture_exponentiate_scaled", "mulpd", 17)
    expect("mpo_mixture_add_scaled", "mulpd", 1)
    expect("mpo_mixture_weighted_sum", "mulpd", 1)
    expect("mpo_mixture_greatest", "maxpd", 1)
    expect("mpo_mixture_max", "maxps", 1)
    expect("round_below", "paddd", 1)
    register["avx512f"] = "%zmm"
    register["avx2"] = "%ymm"
    register["default"] = "%xmm"
}
function expect(loop, name, least) { instruction[loop] = name; minimum[loop] = least }
/^[0-9a-f]+ <.*>:$/ {
    split(substr($2, 2, length($2) - 3), part, ".")
    known = part[1] in instruction && part[2] in register
    loop = part[1]
    clone = part[2]
    seen[loop, clone] += known
    next
}
known && $2 ~ "^v?" instruction[loop] "$" && index($0, register[clone]) { count[loop, clone]++ }
END {
    for (loop in instruction)
        for (clone in register) {
            found = count[loop, clone] + 0
            if (loop == "mpo_mixture_greatest" && clone == "default")
                continue
            if (!seen[loop, clone])
                problem = "there is no such function"
            else if (found < minimum[loop])
                problem = "expected at least " minimum[loop] " " instruction[loop] " on " \
                    register[clone] ", found " found
            else
                continue
            print loop "." clone ": " problem
            bad = 1
        }
    if (bad)
        print "A loop became scalar code; -fopt-info-vec-missed says why (mixture/loops.c)."
    exit bad
}'
