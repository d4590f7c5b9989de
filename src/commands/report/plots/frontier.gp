# SPDX-License-Identifier: Apache-2.0
# The frontier of a refit: what the first two objectives get, coloured by F; hollow where too
# few responses support it.
#
# mpo sets these before: output, is_png, objective [K] and, tab-separated under a head line,
# $data as `mpo refit RUN.h5 --frontier=N` prints:
#     K of weights, value_jackknife (value_draws where F is unknown), K of log_policy, ess, supported

K = |objective|
value = K + 1
first = K + 2
second = K + 3
supported = 2 * K + 3
number_if(wanted, c) = column(supported) == wanted ? column(c) : NaN
any_supported = 0
do for [i = 2:|$data|] {
    any_supported = any_supported || word($data[i], supported) eq '1'
}

set encoding utf8
set datafile separator tab
set datafile missing 'nan'
if (is_png) {
    set terminal pngcairo size 1000,750 font 'Sans,12' background 'white' noenhanced
} else {
    set terminal svg size 800,600 dynamic font 'Helvetica,Arial,sans-serif,13' background 'white' noenhanced
}
set output output
set border 3 lc rgb '#606060'
set tics out nomirror scale 0.6
set grid back lt 1 dt solid lw 0.6 lc rgb '#D8D8D8'
set key bottom left
set xlabel 'mean log pi of '.objective[1].', nat'
set ylabel 'mean log pi of '.objective[2].', nat'
set cblabel word($data[1], value) eq 'value_jackknife' ? 'F, nat' : 'F of the draws, nat'
set palette gray
set autoscale cbfix
if (any_supported) {
    plot $data using first:(number_if(1, second)):value every ::1 \
            with points pt 7 ps 1.2 palette title 'supported', \
        $data using first:(number_if(0, second)) every ::1 \
            with points pt 6 lc rgb '#D55E00' title 'too few responses'
} else {
    plot $data using first:(number_if(0, second)) every ::1 \
            with points pt 6 lc rgb '#D55E00' title 'too few responses'
}
unset output
