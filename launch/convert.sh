#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Convert a Hugging Face checkpoint to the GGUF file that mpo reads, or a GGUF adapter back.
#
#     launch/convert.sh FOLDER [--type TYPE] [--output FILE] [--name NAME] [--base FOLDER]
#     launch/convert.sh --to-peft FILE --base FOLDER [--output FOLDER]
#
#   FOLDER     a full model (config.json, *.safetensors, its tokenizer), or a PEFT adapter
#              (adapter_config.json, adapter_model.safetensors)
#   --type     f32, f16, bf16, q8_0, or auto (default): for a model the 16-bit type closest to
#              its own, for an adapter f32
#   --output   the file to write, which must not exist (default: NAME.gguf in this folder)
#   --name     the name written into the file, an adapter's with capitals (default: FOLDER's)
#   --base     the folder of an adapter's base model, of which only the configuration is read
#              (default: what the adapter names, where that is a folder)
#   --to-peft  a LoRA adapter in GGUF, such as `mpo export` writes: it becomes a PEFT folder, in
#              32-bit floats, for vLLM and Hugging Face (default of --output: FILE without .gguf)
#
# An adapter of rsLoRA, or with ranks and alphas of single modules, is written with the same
# effect.  One that is more than pairs of matrices for an unchanged base model is refused with the
# name of what cannot be written: DoRA, PiSSA and OLoRA, trained norms, biases or embeddings, and
# keys of adapter_config.json that are not known here (launch/adapter.py).  The way back needs a
# --base that transformers knows; its result is converted again and compared (launch/to_peft.py).
#
# The converters are llama.cpp's, from the archive that libllama is built from.  The first call
# makes a Python environment for them (launch/setup.sh --converters): 0.75 GB to download,
# 1.8 GB on disk.  With PIP_EXTRA_INDEX_URL set to PyTorch's own index of CPU builds, pip takes
# its smaller torch.  Messages go to stderr.  Environment: see launch/setup.sh.
# Exit codes: 0 done, 64 usage, 65 FOLDER or FILE is not what the converters read, 66 no such
# FOLDER or FILE, 69 the converters cannot be fetched, 73 the output exists or cannot be made, 74 the disk is full.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=${MPO_BUILD_DIR:-$root/build}/deps
folder="" type=auto output="" name="" base="" to_peft=""

say() { printf -- '-- %s\n' "$*" >&2; }
die() { local code=$1; shift; printf 'convert.sh: %s\n' "$*" >&2; exit "$code"; }
usage() { die 64 "$*; usage: ${0##*/} FOLDER [--type TYPE] [--output FILE] [--name NAME] [--base FOLDER], or --to-peft FILE --base FOLDER [--output FOLDER]"; }

read_arguments() {
    local option
    while [ $# -gt 0 ]; do
        case $1 in
            --help) sed -n '3,/^[^#]/s/^#\( \|$\)//p' "$0"; exit 0 ;;
            --*=*) option=$1; shift; set -- "${option%%=*}" "${option#*=}" "$@" ;;
            --type | --output | --name | --base | --to-peft)
                [ -n "${2-}" ] || usage "$1 needs a value"
                option=${1#--}
                printf -v "${option/-/_}" '%s' "$2"
                shift 2 ;;
            -*) usage "unknown option '$1'" ;;
            *) [ -z "$folder" ] || usage "one FOLDER expected, found '$folder' and '$1'"; folder=$1; shift ;;
        esac
    done
    if [ -n "$to_peft" ]; then
        [ "$folder$name$type" = auto ] || usage "--to-peft takes --base and --output alone"
        [ -n "$base" ] || usage "--to-peft needs --base, the folder of the adapter's base model"
        return
    fi
    [ -n "$folder" ] || usage "FOLDER is missing"
    case $type in
        f32 | f16 | bf16 | q8_0 | auto) ;;
        *) usage "--type is f32, f16, bf16, q8_0 or auto, not '$type'" ;;
    esac
}

# Sets kind to model, adapter or gguf.
find_kind() {
    if [ -n "$to_peft" ]; then
        kind=gguf
        [ -f "$to_peft" ] || die 66 "no file '$to_peft'"
        return
    fi
    [ -d "$folder" ] || die 66 "no folder '$folder'"
    if [ -e "$folder/adapter_config.json" ]; then
        kind=adapter
        [ -e "$folder/adapter_model.safetensors" ] \
            || die 65 "'$folder' has an adapter_config.json but no adapter_model.safetensors"
    elif [ -e "$folder/config.json" ]; then
        kind=model
        find "$folder/" -maxdepth 1 -name '*.safetensors' | grep -q . \
            || die 65 "'$folder' has a config.json but no *.safetensors"
        [ -z "$base" ] || usage "--base is for adapters, and '$folder' is a full model"
    else
        die 65 "'$folder' has neither a config.json (a full model) nor an adapter_config.json (a PEFT adapter)"
    fi
}

find_base() {
    local named
    if [ -n "$base" ]; then
        [ -d "$base" ] || die 66 "no folder '$base', the --base"
    else
        named=$(sed -n 's/.*"base_model_name_or_path": *"\([^"]*\)".*/\1/p' "$folder/adapter_config.json")
        [ -d "$named" ] \
            || die 66 "the adapter's base model '$named' is not a folder here; name its folder with --base"
        base=$named
    fi
    [ -e "$base/config.json" ] || die 65 "the base model's folder '$base' has no config.json"
}

check_output() {
    local target
    if [ "$kind" = gguf ]; then
        output=${output:-$(basename "$to_peft" .gguf)}
        output=${output%/}
    else
        name=${name:-$(basename "$(realpath "$folder")")}
        output=${output:-$name.gguf}
    fi
    target=$(dirname "$output")
    [ ! -e "$output" ] || die 73 "'$output' exists; remove it, or name another file with --output"
    [ -w "$target/." ] || die 73 "'$output' cannot be made: '$target' is not a writable folder"
}

# What changes a policy and cannot be written is refused before anything is fetched, if there
# is a Python to look with.
check_adapter() {
    ! command -v python3 >/dev/null || python3 "$root/launch/adapter.py" check "$folder" "$base" || exit 65
}

# The converter names an adapter after its folder and copies the trainer's paths from its model
# card, so it is given only the adapter's two files, in a folder of the wanted name.  Its own
# auto type stops at every adapter.
run_converter() {
    local seen
    if [ "$kind" = model ]; then
        "$python" "$converters/convert_hf_to_gguf.py" --outtype "$type" --outfile "$part" \
            --model-name "$name" "$folder"
    else
        seen=$work/${name//\//-}
        "$python" "$converters/convert_lora_to_gguf.py" --outtype "${type/auto/f32}" --outfile "$part" \
            --base "$base" "$seen"
    fi
}

to_peft() {
    PYTHONPATH=$converters/gguf-py:$converters "$python" -B "$root/launch/to_peft.py" "$@"
}

# The folder is right if the converter makes the same tensors of it.
turn_back() {
    local again=$work/again.gguf
    to_peft write "$to_peft" "$base" "$part" || {
        [ $? != 74 ] || die 74 "the disk with '$output' is full"
        exit 65
    }
    "$python" "$converters/convert_lora_to_gguf.py" --outtype f32 --outfile "$again" --base "$base" \
        "$part" >"$work/log" 2>&1 || explain_failure
    to_peft compare "$to_peft" "$again"
}

# A converter exits with one code for all failures, and numpy gives no cause of a short write.
explain_failure() {
    tail -5 "$work/log" >&2
    ! grep -q 'No space left\|File too large\| requested and [0-9]* written' "$work/log" \
        || die 74 "the disk with '$output' is full"
    die 65 "llama.cpp's converter stopped at '${folder:-$to_peft}' (its last messages are above)"
}

read_arguments "$@"
find_kind
[ "$kind" = model ] || find_base
[ "$kind" != adapter ] || check_adapter
check_output
"$root/launch/setup.sh" --converters

part=$output.$$.part
python=$deps/convert-venv/bin/python converters=$deps/llama-src/vendor/llama.cpp
work=$(mktemp -d)
trap 'rm -rf "$work" "$part"' EXIT
export HF_HUB_OFFLINE=1 # nothing is downloaded from a hub: a missing file is an error
if [ "$kind" = gguf ]; then
    say "turning the adapter '$to_peft' back"
    turn_back
else
    [ "$kind" = model ] \
        || "$python" "$root/launch/adapter.py" prepare "$folder" "$base" "$work/${name//\//-}" || exit 65
    say "converting the $kind '$folder' (type $type)"
    run_converter >"$work/log" 2>&1 || explain_failure
fi
mv -nT "$part" "$output"
[ ! -e "$part" ] || die 73 "'$output' was just created by another program"
say "wrote '$output' ($(du -sh --apparent-size "$output" | cut -f1))"
