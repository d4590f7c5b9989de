# SPDX-License-Identifier: Apache-2.0
# Averaged weight of the first objective and averaged imbalance (whole: gap) against responses:
# gnuplot -c fits.gp fits.tsv OUT.svg
set terminal svg size 900,640 font "sans-serif,13" background "white"
set output ARG2
set datafile separator "\t"
# The table's first line names its columns; its blocks are one record each.
stats ARG1 skip 1 using 2 nooutput
last = STATS_blocks - 1
weight = system(sprintf("head -1 '%s' | cut -f6", ARG1))
# Columns of all objectives' weights and divergences stand before the imbalance.
imbalance = real(system(sprintf("head -1 '%s' | tr '\\t' '\\n' | grep -n '^imbalance$' | cut -d: -f1", ARG1)))
name(block) = system(sprintf("awk -F'\\t' 'NR > 1 && NF > 1 && $2 == 1 { if (n++ == %d) print $1 }' '%s'", block, ARG1))
set grid linecolor rgb "#dddddd"
set lmargin 10
set key outside right top
set multiplot layout 2,1
set ylabel weight noenhanced
plot for [i=0:last] ARG1 skip 1 index i using 3:6 with lines linewidth 2 title name(i) noenhanced
set ylabel "averaged imbalance or gap (nat)"
set xlabel "responses"
set logscale y
plot for [i=0:last] ARG1 skip 1 index i using 3:(column(int(imbalance))) with lines linewidth 2 title name(i) noenhanced
unset multiplot
