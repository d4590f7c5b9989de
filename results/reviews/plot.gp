# SPDX-License-Identifier: Apache-2.0
# Rewards of policies, curves of weights, fits and averaged adapters, with standard errors:
# gnuplot -c plot.gp table.tsv OUT.svg
set terminal svg size 960,560 font "sans-serif,13" background "white"
set output ARG2
set datafile separator "\t"
set datafile columnheaders
set xlabel "sentiment (VADER compound)"
set ylabel "concise (minus tokens)"
set grid linecolor rgb "#dddddd"
set offsets graph 0.03, graph 0.03, graph 0.03, graph 0.03
set key outside right top samplen 2 noenhanced
on(curve) = strcol("curve") eq curve ? column("sentiment") : NaN
rows = int(system(sprintf("grep -c . '%s'", ARG1))) - 1
name(row) = system(sprintf("sed -n %dp '%s' | cut -f1", row + 2, ARG1))
# Points that only make a curve have no entry of their own.
entry(row) = name(row)[1:7] eq "weight " ? "" : name(row)
group(row) = name(row)[1:8] eq "averaged" ? 1 : strstrt(name(row), " fit") > 0 ? 2 : 3
array marks[3] = [5, 7, 9]
plot ARG1 using (on("weights, strength 1")):"concise" smooth unique with lines linewidth 2 linecolor rgb "#9ecae1" title "all weights, strength 1", \
    "" using (on("weights, strength 2")):"concise" smooth unique with lines linewidth 2 linecolor rgb "#a1d99b" title "all weights, strength 2", \
    for [row=0:rows - 1] "" every ::row::row using "sentiment":"concise":"sentiment_error":"concise_error" \
    with xyerrorbars pointtype marks[group(row)] pointsize 1 linecolor row + 1 title entry(row)
