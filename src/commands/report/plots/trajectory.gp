# SPDX-License-Identifier: Apache-2.0
# The trajectory of a fit. Five panels share the steps: the weights (thin: where each gradient
# was taken; thick: their average, the output), F with its standard error, the averaged gap,
# the effective sample size, and the time of each stage, on a logarithmic scale because they
# differ by orders of magnitude. Lines are named at their ends and differ by dashes as well as
# by colour (Okabe and Ito's palette, made for colour-blind readers).
#
# mpo sets these before: output, is_png, title, value_title, regret_title, objective [K], stage [S] and, tab-separated
# under a head line, $data as these series of `mpo inspect RUN.h5 --format=tsv --series=...`:
#     step, K of weights, K of average, value, value_error, averaged_gap, ess, S of timing/...

K = |objective|
S = |stage|
value = 2 * K + 2
error = value + 1
gap = value + 2
ess = value + 3
first_stage = value + 4
columns = first_stage + S - 1

array color[8] = ['0072B2', 'D55E00', '009E73', 'CC79A7', '56B4E9', 'E69F00', '000000', '8C6D31']
set style line 1 dt solid pt 7
set style line 2 dt (9,4) pt 7
set style line 3 dt (2,3) pt 7
set style line 4 dt (9,3,2,3) pt 7
set style line 5 dt (14,5) pt 7
set style line 6 dt (9,3,2,3,2,3) pt 7
set style line 7 dt (5,3) pt 7
set style line 8 dt (14,3,5,3) pt 7
style(i) = (i - 1) % 8 + 1
least(a, b) = a < b ? a : b
most(a, b) = a > b ? a : b
number(x) = x - x == 0
last_of(c) = real(word($data[|$data|], c))

set encoding utf8
set datafile separator tab
set datafile missing 'nan'

# ---- ranges: those of each column, empty where a record has no such series ----

# A logarithmic scale has no zero.
figure(c) = c < first_stage || column(c) > 0 ? column(c) : NaN
array low[columns]
array high[columns]
array total[columns]
do for [c = 1:columns] {
    low[c] = 1e300
    high[c] = -1e300
    total[c] = 0
    stats $data using (number(figure(c))) every ::1 nooutput
    if (STATS_max > 0) {
        stats $data using (figure(c)) every ::1 nooutput
        low[c] = STATS_min
        high[c] = STATS_max
        total[c] = STATS_sum
    }
}
# F and one standard error to each side.
value_low = 1e300
value_high = -1e300
side(sign) = number(column(value)) ? \
    column(value) + sign * (number(column(error)) ? column(error) : 0) : NaN
if (low[value] <= high[value]) {
    stats $data using (side(-1)) every ::1 nooutput
    value_low = STATS_min
    stats $data using (side(+1)) every ::1 nooutput
    value_high = STATS_max
}
# Room around what was seen; gnuplot refuses an empty range.
room(low, high) = most(0.06 * (high - low), 0.03 * abs(high) + 1e-6)
bottom(low, high) = low > high ? 0 : low - room(low, high)
top(low, high) = low > high ? 1 : high + room(low, high)

# ---- labels at the ends of lines ----

# `eval spread_labels` sorts label_count labels by where they are, then moves them apart from
# the top down, and back up from the bottom, between range_low and range_high and by `spacing`
# of that. (gnuplot 5 has no functions of several lines.)
array line[most(K, S)]  # whose label it is
array place[most(K, S)] # where it is
spread_labels = \
    'do for [i = 2:label_count] { do for [j = i:2:-1] { if (place[j] > place[j - 1]) { '. \
    '    swap = place[j]; place[j] = place[j - 1]; place[j - 1] = swap; '. \
    '    swap = line[j]; line[j] = line[j - 1]; line[j - 1] = swap } } }; '. \
    'height = range_high - range_low; '. \
    'apart = height * least(spacing, 0.96 / label_count); '. \
    'do for [i = 2:label_count] { place[i] = least(place[i], place[i - 1] - apart) }; '. \
    'lowest = range_low + 0.02 * height; '. \
    'do for [i = label_count:1:-1] { '. \
    '    place[i] = most(place[i], lowest); lowest = place[i] + apart }'

# ---- the page ----

if (is_png) {
    set terminal pngcairo size 1000,1320 font 'Sans,12' background 'white' noenhanced
} else {
    set terminal svg size 800,1060 dynamic font 'Helvetica,Arial,sans-serif,13' background 'white' noenhanced
}
set output output
# A line through a single step would be invisible.
lines = low[1] < high[1] ? 'lines' : 'points'
beside = low[1] < high[1] ? 0 : 0.5
# Where the panels end, so that the longest label fits beside them.
letters = 20
do for [k = 1:K] {
    letters = most(letters, strlen(objective[k]) + strlen(' 0.000'))
}
set multiplot
set border 3 lc rgb '#606060'
set tics out nomirror scale 0.6
set grid ytics back lt 1 dt solid lw 0.6 lc rgb '#D8D8D8'
set key off
set xrange [low[1] - beside:high[1] + beside]
set lmargin at screen 0.11
set rmargin at screen 1 - 0.0098 * least(letters, 46)
set format x ''

# ---- weights ----

range_high = 0.0
do for [c = 2:2 * K + 1] {
    range_high = most(range_high, high[c])
}
range_high = least(1.0, most(range_high * 1.06, 0.1))
range_low = -0.015 * range_high # a line at zero stays visible
label_count = K
spacing = 0.075
do for [k = 1:K] {
    line[k] = k
    place[k] = number(last_of(K + 1 + k)) ? last_of(K + 1 + k) : range_low
}
eval spread_labels
do for [i = 1:K] {
    set label i sprintf('%s %.3f', objective[line[i]], last_of(K + 1 + line[i])) \
        at graph 1.015, first place[i] left tc rgb '#'.color[style(line[i])]
}
set tmargin at screen 0.9575
set bmargin at screen 0.635
set ylabel 'weight' offset 0.5,0
set yrange [range_low:range_high]
set title title offset 0,-0.3
set xlabel 'thick: the average, which is the output; thin: the weights of each step' \
    offset 0,0.6 tc rgb '#606060'
plot for [k = 1:K] $data using 1:(column(1 + k)) every ::1 \
        with @lines ls style(k) lw 0.9 lc rgb '#70'.color[style(k)], \
    for [k = 1:K] $data using 1:(column(1 + K + k)) every ::1 \
        with @lines ls style(k) lw 2.6 lc rgb '#'.color[style(k)]
unset label
unset title
unset xlabel

# ---- F ----

set tmargin at screen 0.584
set bmargin at screen 0.461
set ylabel 'nat'
set yrange [bottom(value_low, value_high):top(value_low, value_high)]
set label 1 value_title.',' at graph 1.015, 0.62 left
set label 2 'one standard error' at graph 1.015, 0.42 left tc rgb '#606060'
plot $data using 1:(column(value) - column(error)):(column(value) + column(error)) every ::1 \
        with filledcurves lc rgb '#BBD3E8', \
    $data using 1:(column(value)) every ::1 with @lines ls 1 lw 1.6 lc rgb '#0072B2'
unset label

# ---- averaged gap ----

set tmargin at screen 0.427
set bmargin at screen 0.325
if (low[gap] > 0 && low[gap] <= high[gap]) {
    set yrange [low[gap] / 1.2:high[gap] * 1.2]
    set logscale y
} else {
    set yrange [bottom(low[gap], high[gap]):top(low[gap], high[gap])]
}
set label 1 sprintf('%s %.4f', regret_title, last_of(gap)) at graph 1.015, 0.5 left
plot $data using 1:(column(gap)) every ::1 with @lines ls 1 lw 1.6 lc rgb '#D55E00'
unset label
unset logscale y

# ---- effective sample size ----

set tmargin at screen 0.291
set bmargin at screen 0.198
set ylabel 'fraction'
set yrange [0:1.05]
set ytics 0,0.5,1
set label 1 'effective' at graph 1.015, 0.62 left
set label 2 'sample size' at graph 1.015, 0.38 left
plot $data using 1:(column(ess)) every ::1 with @lines ls 1 lw 1.3 lc rgb '#009E73'
unset label
set ytics auto

# ---- stages ----

range_low = 1e300
range_high = -1e300
do for [c = first_stage:columns] {
    range_low = least(range_low, low[c])
    range_high = most(range_high, high[c])
}
if (range_low > range_high) {
    range_low = 1e-3
    range_high = 1.0
}
set tmargin at screen 0.164
set bmargin at screen 0.06
set ylabel 's a step'
set yrange [range_low / 2:range_high * 2]
set logscale y
set format y '%.0e'
set xlabel 'step' tc rgb 'black'
set format x '%g'
range_low = log10(range_low / 2)
range_high = log10(range_high * 2)
label_count = S
spacing = 0.17
do for [i = 1:S] {
    line[i] = i
    place[i] = last_of(first_stage - 1 + i) > 0 ? log10(last_of(first_stage - 1 + i)) : range_low
}
eval spread_labels
do for [i = 1:S] {
    set label i sprintf('%s %.3g s', stage[line[i]], total[first_stage - 1 + line[i]]) \
        at graph 1.015, first 10 ** place[i] left tc rgb '#'.color[style(line[i])]
}
plot for [i = 1:S] $data using 1:(figure(first_stage - 1 + i)) every ::1 \
    with @lines ls style(i) lw 1.4 lc rgb '#'.color[style(i)]
unset multiplot
unset output
