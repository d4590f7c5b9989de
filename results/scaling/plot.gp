# SPDX-License-Identifier: Apache-2.0
# gnuplot plot.gp: table.tsv to plot.svg
set terminal svg size 900,440 font "sans,11"
set output "plot.svg"
set datafile separator "\t"
set multiplot layout 1,2
set logscale xy
set key below
set xlabel "policies K, 8 ranks a node, one policy a rank"
set ylabel "exchange, ms a position (modelled)"
set xrange [2:1024]
set yrange [0.1:5000]
budget = 1.0
do for [network in "100GbE NDR"] {
    set title network
    plot for [pattern in "'mpi gather' 'nodes gather' 'mpi alltoall' 'nodes alltoall'"] \
        "table.tsv" using ((strcol(1) eq network && strcol(2) eq pattern && $3 > 1) ? $3 : NaN):4 \
        with linespoints title pattern, budget with lines dashtype 2 lc "black" title "5 % of 20 ms"
}
unset multiplot
