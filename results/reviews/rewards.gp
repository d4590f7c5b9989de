# SPDX-License-Identifier: Apache-2.0
# Mean rewards of policies, mixtures and averaged adapters: gnuplot -c rewards.gp TABLE OUT.svg
set terminal svg size 720,480 font "sans-serif,13" background "white"
set output ARG2
set datafile separator "\t"
set xlabel "sentiment (VADER compound)"
set ylabel "concise (minus tokens)"
set grid linecolor rgb "#dddddd"
set offsets graph 0.05, graph 0.05, graph 0.05, graph 0.05
set key outside right top
array colours[7] = ["#7f7f7f", "#ff7f0e", "#9467bd", "#17becf", "#1f77b4", "#e377c2", "#d62728"]
array marks[7] = [4, 8, 10, 6, 7, 12, 13]
stats ARG1 skip 1 using 2 nooutput
name(row) = system(sprintf("sed -n %dp '%s' | cut -f1", row + 2, ARG1))
# Columns: policy, then value and error of sentiment, concise, ...
plot for [row=0:STATS_records - 1] ARG1 skip 1 every ::row::row using 2:4:3:5 with xyerrorbars \
    pointtype marks[row + 1] pointsize 1.1 linecolor rgb colours[row + 1] title name(row)
