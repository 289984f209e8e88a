#!/usr/bin/env bash
# The flows of the relay's HTTP API by curl alone: register, login, init, chunks, complete, the same file again, download, delta since a
# timestamp, a message on the WebSocket. Usage: BASE=http://127.0.0.1:PORT bash tests/seed_flow.sh FOLDER
# The relay must have open registration.
set -euo pipefail
: "${BASE:?the address of a relay}"
folder="${1:?a folder for temporary files}"
cd "$folder"

say() { printf -- '- %s\n' "$*"; }
die() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
# field JSON NAME: a field of a JSON object; empty if it is not there.
field() { python3 -c 'import json,sys; v=json.loads(sys.argv[1]).get(sys.argv[2]); print("" if v is None else (str(v).lower() if isinstance(v,bool) else v))' "$1" "$2"; }
json() { curl -sS --fail-with-body -H 'Content-Type: application/json' "$@" || die "curl $*"; }
status() { curl -sS -o /dev/null -w '%{http_code}' "$@"; }

email="seed-$$@example.org" password='a long enough passphrase'
credentials="{\"email\":\"$email\",\"password\":\"$password\",\"name\":\"Seed\"}"

say register
json -d "$credentials" "$BASE/auth/register" >register.json
say login
login=$(json -d "$credentials" "$BASE/auth/login")
token=$(field "$login" access_token)
[[ -n $token ]] || die "login gives an access token: $login"
auth=(-H "Authorization: Bearer $token")
[[ $(status "$BASE/auth/verify") == 401 ]] || die "verify without a token"
[[ $(status "${auth[@]}" "$BASE/auth/verify") == 200 ]] || die "verify with a token"
me=$(json "${auth[@]}" "$BASE/auth/me")
user=$(field "$me" user_id)
[[ -n $user ]] || die "me gives the user id: $me"
[[ $(status -H 'Content-Type: application/json' -d "{\"email\":\"$email\",\"password\":\"wrong wrong wrong\"}" "$BASE/auth/login") == 401 ]] || die "a wrong password"

say "listen on the WebSocket"
curl -sS -N --http1.1 --max-time 30 "${auth[@]}" -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \
    -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' "$BASE/ws/sync/$user" >messages.bin 2>/dev/null &
listener=$!

say "upload in chunks"
head -c 9000000 /dev/urandom >file.bin
size=$(stat -c %s file.bin) hash=$(sha256sum file.bin | cut -d' ' -f1)
before=$(python3 -c 'import time; print(int(time.time()) - 2)')
init=$(json "${auth[@]}" -d "{\"file_name\":\"file.bin\",\"file_size\":$size,\"file_hash\":\"$hash\"}" "$BASE/upload/init")
version=$(field "$init" version_id) chunk=$(field "$init" chunk_size) count=$(field "$init" num_chunks)
[[ -n $version && $chunk == 4194304 && $count == 3 ]] || die "init: $init"
split -b "$chunk" -d -a 3 file.bin part.
for ((i = 0; i < count; i++)); do
    printf '{"version_id":"%s","chunk_index":%d,"chunk_data":"%s"}' "$version" "$i" "$(base64 -w0 "$(printf 'part.%03d' "$i")")" >chunk.json
    if ((i == 1)); then
        [[ $(status "${auth[@]}" -X POST "$BASE/upload/complete/$version") =~ ^4 ]] || die "complete before all chunks are there"
    fi
    json "${auth[@]}" -d @chunk.json "$BASE/upload/chunk" >/dev/null
done
complete=$(json "${auth[@]}" -X POST "$BASE/upload/complete/$version")
file=$(field "$complete" file_id)
[[ -n $file ]] || die "complete: $complete"

say "the same file again"
again=$(json "${auth[@]}" -d "{\"file_name\":\"copy.bin\",\"file_size\":$size,\"file_hash\":\"$hash\"}" "$BASE/upload/init")
[[ $(field "$again" deduplication) == true ]] || die "deduplication: $again"

say download
curl -sS --fail "${auth[@]}" "$BASE/download/$file" -o back.bin
cmp file.bin back.bin || die "the download differs"
curl -sS --fail "${auth[@]}" -H 'Range: bytes=1000-1999' "$BASE/download/$file" -o range.bin
cmp <(tail -c +1001 file.bin | head -c 1000) range.bin || die "the range differs"
[[ $(status "$BASE/download/$file") == 401 ]] || die "a download without a token"

say "delta since a timestamp"
delta=$(json "${auth[@]}" "$BASE/sync/delta?since=$before")
[[ $delta == *"$file"* && $delta == *changes* ]] || die "delta: $delta"

say "a message came on the WebSocket"
for ((i = 0; i < 100; i++)); do
    if grep -aq '"type"' messages.bin; then break; fi
    sleep 0.1
done
kill "$listener" 2>/dev/null || true
grep -aq '101 Switching\|"type"' messages.bin || die "no message: $(head -c 300 messages.bin)"

say "wrong bytes are refused"
bad=$(json "${auth[@]}" -d "{\"file_name\":\"bad.bin\",\"file_size\":5,\"file_hash\":\"$(printf hello | sha256sum | cut -d' ' -f1)\"}" "$BASE/upload/init")
id=$(field "$bad" version_id)
code=$(status "${auth[@]}" -H 'Content-Type: application/json' -d "{\"version_id\":\"$id\",\"chunk_index\":0,\"chunk_data\":\"$(printf jello | base64)\"}" "$BASE/upload/chunk")
if [[ $code == 2* ]]; then
    code=$(status "${auth[@]}" -X POST "$BASE/upload/complete/$id")
fi
[[ $code == 4* ]] || die "wrong bytes were taken: $code"
[[ $(status "${auth[@]}" -H 'Content-Type: application/json' -d '{"file_name":' "$BASE/upload/init") == 4* ]] || die "malformed JSON"

say "delete and list"
[[ $(status "${auth[@]}" -X DELETE "$BASE/metadata/files/$file") == 2* ]] || die "delete"
list=$(json "${auth[@]}" "$BASE/metadata/files")
[[ $list == *copy.bin* ]] || die "the copy is listed: $list"
echo "all flows work"
