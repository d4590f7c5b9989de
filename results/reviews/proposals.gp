# SPDX-License-Identifier: Apache-2.0
# Weight, value, gap and ESS of fits against responses: gnuplot -c proposals.gp TABLE OUT.svg
set terminal svg size 720,960 font "sans-serif,13" background "white"
set output ARG2
set datafile separator "\t"
# The table's first line names its columns; its blocks are one fit each.
stats ARG1 skip 1 using 2 nooutput
last = STATS_blocks - 1
array titles[4] = ["mixture", "mixture, no tilt", "reference", "mixture, seed 2"]
array colours[4] = ["#1f77b4", "#2ca02c", "#d62728", "#9467bd"]
# Mean of a column over the steps of a block so far.
mean(value) = (sum = $0 == 0 ? value : sum + value, sum / ($0 + 1))
sum = 0
set grid linecolor rgb "#dddddd"
set lmargin 10
set rmargin 4
set multiplot layout 4,1
set key above
set ylabel "weight of sentiment"
plot for [i=0:last] ARG1 skip 1 index i using 2:5 with lines linewidth 2 linecolor rgb colours[i + 1] title titles[i + 1]
unset key
set ylabel "F at the weights (nat)"
plot for [i=0:last] ARG1 skip 1 index i using 2:6 with points pointtype 7 pointsize 0.5 linecolor rgb colours[i + 1]
set ylabel "averaged gap (nat)"
set logscale y
plot for [i=0:last] ARG1 skip 1 index i using 2:7 with lines linewidth 2 linecolor rgb colours[i + 1]
unset logscale y
set ylabel "ESS, mean so far"
set xlabel "responses"
set yrange [0:1]
plot for [i=0:last] ARG1 skip 1 index i using 2:(mean($8)) with lines linewidth 2 linecolor rgb colours[i + 1]
unset multiplot
