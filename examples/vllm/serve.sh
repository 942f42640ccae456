#!/bin/sh
# Serves a run's backbone as an l2d engine with vLLM, in an environment of its own: vLLM pins its own torch, so it must
# not be installed beside l2d.
#
#   python3 -m venv vllm-env && vllm-env/bin/pip install vllm
#   PATH=$PWD/vllm-env/bin:$PATH examples/vllm/serve.sh RUN [PORT] [more options of vllm serve]
#   l2d recommend RUN --engine vllm=http://localhost:8000 --history "..."
#
# A run that keeps an adapter has to be merged first: vLLM is given full weights.
set -eu

run=${1:?usage: serve.sh RUN [PORT] [options of vllm serve]}
port=${2:-8000}
shift
[ $# -gt 0 ] && shift

if [ ! -f "$run/backbone/config.json" ]; then
    echo "$run/backbone holds no full weights; see base.json there for the model that it names" >&2
    exit 2
fi

# The last token's state after the final norm, as it is: no pooling over tokens, no scaling to unit length.
exec vllm serve "$run/backbone" \
    --runner pooling \
    --convert embed \
    --pooler-config '{"pooling_type": "LAST", "use_activation": false}' \
    --enable-prefix-caching \
    --served-model-name l2d \
    --port "$port" \
    "$@"
