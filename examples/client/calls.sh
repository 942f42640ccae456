#!/bin/sh
# Every route of a server, called with curl.
#
#   examples/client/calls.sh [URL] [ITEM]     default http://127.0.0.1:8000 and the first item that "the" finds
#
# L2D_KEY is sent where it is set. Writes are made with a user of their own, who is forgotten again at the end.

set -eu

url=${1:-http://127.0.0.1:8000}
user="example-$$"

call() {
    # --fail-with-body: the answer says what is wrong and what to do, so it is shown.
    method=$1 path=$2
    shift 2
    echo "$method $path" >&2
    curl --silent --show-error --fail-with-body --max-time 30 --request "$method" "$url$path" \
        ${L2D_KEY:+--header "Authorization: Bearer $L2D_KEY"} --header 'Content-Type: application/json' "$@"
    echo
}

call GET /healthz
call GET /readyz
call GET /v1/memory
call GET '/v1/items?query=the&k=3'

item=${2:-$(curl --silent ${L2D_KEY:+--header "Authorization: Bearer $L2D_KEY"} "$url/v1/items?query=the&k=1" |
    sed -n 's/.*"item_id":"\{0,1\}\([^",}]*\)"\{0,1\}.*/\1/p')}

# A history of ids or titles, oldest first. "id:" in front says that it is an id.
call POST /v1/recommend --data "{\"history\": [\"id:$item\"], \"k\": 5, \"explain\": true}"
# Nobody yet: popularity answers, and "cold" says so.
call POST /v1/recommend --data '{"history": [], "k": 3}'
call POST /v1/recommend:batch --data "{\"requests\": [{\"history\": [\"id:$item\"], \"k\": 2}, {\"history\": [], \"k\": 2}]}"
call GET "/v1/similar/$item?k=3"

# Twice the same: the second time it is known, so a retry does no harm.
written="{\"interactions\": [{\"user_id\": \"$user\", \"item_id\": \"$item\", \"timestamp\": 1766966400}]}"
call POST /v1/interactions --data "$written"
call POST /v1/interactions --data "$written"
call POST /v1/recommend --data "{\"user\": \"$user\", \"k\": 3}"
call DELETE "/v1/users/$user"
