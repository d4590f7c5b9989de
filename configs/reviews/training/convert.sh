#!/usr/bin/env bash
# Convert a PEFT adapter to GGUF in f16, with no machine's path inside.
#
#     convert.sh LLAMA_CPP HF_FOLDER PEFT_FOLDER OUT.gguf NAME
#
# LLAMA_CPP holds convert_lora_to_gguf.py (build/deps/llama-src/vendor/llama.cpp after
# launch/setup.sh); HF_FOLDER gives the converter the base's configuration.  The adapter's name
# comes from its folder, so a copy is called NAME; PEFT's model card would bring paths along.
set -euo pipefail

[ $# = 5 ] || { sed -n '4s/^# */usage: /p' "$0" >&2; exit 64; }
llama_cpp=$1 hf=$2 peft=$3 out=$4 name=$5
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cp -r "$peft" "$work/$name"
rm -f "$work/$name/README.md"
python3 "$llama_cpp/convert_lora_to_gguf.py" --base "$hf" --outtype f16 --outfile "$out" "$work/$name"
