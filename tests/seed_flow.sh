#!/usr/bin/env bash
# The flows of the relay's HTTP API by curl alone: register, login, refresh; init, chunks (JSON, form, raw), complete, the same file again; download
# with ranges and ETags, signed addresses; delta since a timestamp and by cursor, messages on the WebSocket; list, info, rename, move, versions, delete,
# trash; storage used and its limit; and what is wrong. Usage: BASE=http://127.0.0.1:PORT bash tests/seed_flow.sh FOLDER
# The relay must have open registration. The limit is tried if the relay has one by default (auth.default_storage_limit_bytes).
set -euo pipefail
: "${BASE:?the address of a relay}"
folder="${1:?a folder for temporary files}"
cd "$folder"

say() { printf -- '- %s\n' "$*"; }
die() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
# field JSON NAME: a field of a JSON object; empty if it is not there.
field() { python3 -c 'import json,sys; v=json.loads(sys.argv[1]).get(sys.argv[2]); print("" if v is None else (str(v).lower() if isinstance(v,bool) else v))' "$1" "$2"; }
json() { curl -sS --fail-with-body -H 'Content-Type: application/json' "$@" || die "curl $*"; }
# code PATTERN WHAT CURL-ARGUMENTS...: the status is one of the pattern, and a refusal is a problem document with a reason.
code() {
    local pattern=$1 what=$2 got
    shift 2
    got=$(curl -sS -o answer.json -w '%{http_code} %{content_type}' "$@")
    # shellcheck disable=SC2053
    [[ ${got%% *} == $pattern ]] || die "$what: $got instead of $pattern: $(head -c 300 answer.json)"
    if [[ $got == [45]* ]]; then
        [[ ${got#* } == application/problem+json* && -n $(field "$(cat answer.json)" detail) ]] || die "$what: no problem document: $got $(head -c 300 answer.json)"
    fi
}
# header NAME CURL-ARGUMENTS...: a header of the answer.
header() { local name=$1; shift; curl -sS -o /dev/null -D - "$@" | tr -d '\r' | sed -n "s/^$name: //Ip" | head -n 1; }
js=(-H 'Content-Type: application/json')
status() { curl -sS -o /dev/null -w '%{http_code}' "$@"; }

email="seed-$$@example.org" password='a long enough passphrase'
credentials="{\"email\":\"$email\",\"password\":\"$password\",\"name\":\"Seed\"}"

say register
json -d "$credentials" "$BASE/auth/register" >register.json
say login
login=$(json -d "$credentials" "$BASE/auth/login")
token=$(field "$login" access_token)
[[ -n $token ]] || die "login gives an access token: $login"
[[ $(field "$login" expires_in) -gt 0 && $(field "$login" token_type) == Bearer ]] || die "login says what it gave: $login"
auth=(-H "Authorization: Bearer $token")
[[ $(status "$BASE/auth/verify") == 401 ]] || die "verify without a token"
[[ $(status "${auth[@]}" "$BASE/auth/verify") == 200 ]] || die "verify with a token"
me=$(json "${auth[@]}" "$BASE/auth/me")
user=$(field "$me" user_id)
[[ -n $user ]] || die "me gives the user id: $me"
[[ $(status -H 'Content-Type: application/json' -d "{\"email\":\"$email\",\"password\":\"wrong wrong wrong\"}" "$BASE/auth/login") == 401 ]] || die "a wrong password"

code 409 "the same address again" "${js[@]}" -d "$credentials" "$BASE/auth/register"
code 422 "a short password" "${js[@]}" -d '{"email":"other@example.org","password":"x"}' "$BASE/auth/register"
code 400 "half of a body" "${js[@]}" -d '{"email":' "$BASE/auth/login"
code 415 "a form instead of JSON" -d 'email=a&password=b' "$BASE/auth/login"

say refresh
refreshed=$(json -d "{\"refresh_token\":\"$(field "$login" refresh_token)\"}" "$BASE/auth/refresh")
[[ -n $(field "$refreshed" access_token) && $(field "$refreshed" refresh_token) != "$(field "$login" refresh_token)" ]] || die "refresh: $refreshed"
code 401 "an access token is no refresh token" "${js[@]}" -d "{\"refresh_token\":\"$token\"}" "$BASE/auth/refresh"
code 401 "a refresh token is no access token" -H "Authorization: Bearer $(field "$refreshed" refresh_token)" "$BASE/auth/me"
code 401 "no token in the query" "$BASE/auth/me?access_token=$token"

say "listen on the WebSocket"
ws=(--http1.1 -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==')
code 401 "a socket without a token" "${ws[@]}" "$BASE/ws/sync/$user"
code 403 "the socket of somebody else" "${ws[@]}" "${auth[@]}" "$BASE/ws/sync/00000000-0000-4000-8000-000000000000"
code 403 "a page of another origin" "${ws[@]}" "${auth[@]}" -H 'Origin: https://evil.example' "$BASE/ws/sync/$user"
curl -sS -N --max-time 60 "${ws[@]}" "${auth[@]}" "$BASE/ws/sync/$user" >messages.bin 2>/dev/null &
listener=$!
# until_message WORD: it comes on the socket.
until_message() {
    for ((i = 0; i < 200; i++)); do
        if grep -aq "$1" messages.bin; then return; fi
        sleep 0.1
    done
    die "no $1 on the socket: $(head -c 300 messages.bin)"
}
until_message '"hello"'

say "upload in chunks"
head -c 9000000 /dev/urandom >file.bin
size=$(stat -c %s file.bin) hash=$(sha256sum file.bin | cut -d' ' -f1)
before=$(python3 -c 'import time; print(int(time.time()) - 2)')
init=$(json "${auth[@]}" -d "{\"file_name\":\"file.bin\",\"file_size\":$size,\"file_hash\":\"$hash\"}" "$BASE/upload/init")
version=$(field "$init" version_id) chunk=$(field "$init" chunk_size) count=$(field "$init" num_chunks)
[[ -n $version && $chunk == 4194304 && $count == 3 ]] || die "init: $init"
[[ $(field "$(json "${auth[@]}" "$BASE/api/v1/me/usage")" storage_used) == 0 ]] || die "nothing is used before a chunk came"
split -b "$chunk" -d -a 3 file.bin part.
for ((i = 0; i < count; i++)); do
    printf '{"version_id":"%s","chunk_index":%d,"chunk_data":"%s"}' "$version" "$i" "$(base64 -w0 "$(printf 'part.%03d' "$i")")" >chunk.json
    if ((i == 1)); then
        code 409 "complete before all chunks are there" "${auth[@]}" -X POST "$BASE/upload/complete/$version"
        [[ $(cat answer.json) == *missing_chunks* ]] || die "it says which chunks are missing: $(cat answer.json)"
        resume=$(json "${auth[@]}" "$BASE/upload/$version")
        [[ $(field "$resume" remaining) == 2 && $(field "$resume" received) == "[0]" ]] || die "how far it is: $resume"
    fi
    uploaded=$(json "${auth[@]}" -d @chunk.json "$BASE/upload/chunk")
    [[ $(field "$uploaded" uploaded) == true && $(field "$uploaded" remaining) == $((count - i - 1)) ]] || die "chunk: $uploaded"
    json "${auth[@]}" -d @chunk.json "$BASE/upload/chunk" >/dev/null
done
complete=$(json "${auth[@]}" -X POST "$BASE/upload/complete/$version")
file=$(field "$complete" file_id)
[[ -n $file && $(field "$complete" status) == completed && $(field "$complete" file_hash) == "$hash" ]] || die "complete: $complete"
[[ $(field "$(json "${auth[@]}" -X POST "$BASE/upload/complete/$version")" file_id) == "$file" ]] || die "twice is once"
until_message '"file_change"'
kill "$listener" 2>/dev/null || true

say "the same file again"
again=$(json "${auth[@]}" -d "{\"file_name\":\"copy.bin\",\"file_size\":$size,\"file_hash\":\"$hash\"}" "$BASE/upload/init")
[[ $(field "$again" deduplication) == true ]] || die "deduplication: $again"
copy=$(field "$again" file_id)
[[ -n $copy && $copy != "$file" ]] || die "a file of its own: $again"
[[ $(field "$(json "${auth[@]}" "$BASE/api/v1/me/usage")" storage_used) == "$size" ]] || die "the same bytes are counted once"

say download
curl -sS --fail "${auth[@]}" "$BASE/download/$file" -o back.bin
cmp file.bin back.bin || die "the download differs"
curl -sS --fail "${auth[@]}" -H 'Range: bytes=1000-1999' "$BASE/download/$file" -o range.bin
cmp <(tail -c +1001 file.bin | head -c 1000) range.bin || die "the range differs"
curl -sS --fail "${auth[@]}" -H 'Range: bytes=-10' "$BASE/download/$file" | cmp - <(tail -c 10 file.bin) || die "the last bytes differ"
code 206 "a range" "${auth[@]}" -H 'Range: bytes=0-9' "$BASE/download/$file"
code 416 "a range beyond the end" "${auth[@]}" -H "Range: bytes=$size-" "$BASE/download/$file"
etag=$(header etag "${auth[@]}" "$BASE/download/$file")
[[ $etag == "\"$hash\"" ]] || die "the ETag is the hash: $etag"
code 304 "what is known already" "${auth[@]}" -H "If-None-Match: $etag" "$BASE/download/$file"
code 206 "a range of this version" "${auth[@]}" -H 'Range: bytes=0-9' -H "If-Range: $etag" "$BASE/download/$file"
code 200 "a range of another version" "${auth[@]}" -H 'Range: bytes=0-9' -H 'If-Range: "other"' "$BASE/download/$file"
[[ $(curl -sS -I "${auth[@]}" "$BASE/download/$file" | tr -d '\r' | sed -n 's/^content-length: //Ip') == "$size" ]] || die "HEAD gives the size"
code 401 "a download without a token" "$BASE/download/$file"
code 404 "a download of nothing" "${auth[@]}" "$BASE/download/00000000-0000-4000-8000-000000000000"

say "signed addresses"
signed=$(field "$(json "${auth[@]}" -d '{"expires_in":60}' "$BASE/download/$file/url")" url)
signed="$BASE/d/${signed##*/d/}"
curl -sS --fail "$signed" | cmp - file.bin || die "the file by its signed address differs"
code 206 "a range by a signed address" -H 'Range: bytes=0-9' "$signed"
code 404 "a changed address" "${signed}x"
code 422 "an address without end" "${auth[@]}" "${js[@]}" -d '{"expires_in":99999999}' "$BASE/download/$file/url"
code 401 "signing without a token" -X POST "$BASE/download/$file/url"

say "delta since a timestamp"
delta=$(json "${auth[@]}" "$BASE/sync/delta?since=$before")
[[ $delta == *"$file"* && $delta == *changes* ]] || die "delta: $delta"

cursor=$(field "$delta" cursor)
[[ -n $cursor && $(field "$delta" has_more) == false && -n $(field "$delta" server_time) ]] || die "delta: $delta"
[[ $(json "${auth[@]}" "$BASE/sync/delta?since=$(date -u -d "@$before" +%Y-%m-%dT%H:%M:%SZ)") == *"$file"* ]] || die "the delta takes RFC 3339"
[[ $(json "${auth[@]}" "$BASE/sync/delta?since=$(($(date +%s) + 3600))") != *"$file"* ]] || die "nothing is new since a time to come"
[[ $(json "${auth[@]}" "$BASE/sync/delta?since=$cursor") != *"$file"* ]] || die "nothing is new since the cursor"
code 400 "a time that is none" "${auth[@]}" "$BASE/sync/delta?since=yesterday"
code 401 "a delta without a token" "$BASE/sync/delta?since=0"

say "list, info, rename and move"
list=$(json "${auth[@]}" "$BASE/metadata/files?sort=-size&limit=1")
[[ $(field "$list" has_more) == true && -n $(field "$list" cursor) ]] || die "a page of a list: $list"
[[ $(json "${auth[@]}" "$BASE/metadata/files?sort=-size&limit=1&cursor=$(field "$list" cursor)") != "$list" ]] || die "the next page is another"
info=$(json "${auth[@]}" "$BASE/metadata/files/$copy")
[[ $(field "$info" file_name) == copy.bin && $(field "$info" file_size) == "$size" && $(field "$info" file_hash) == "$hash" ]] || die "info: $info"
match=$(header etag "${auth[@]}" "$BASE/metadata/files/$copy")
form=(-F version_id="$(field "$(json "${auth[@]}" -d "{\"file_name\":\"form.txt\",\"path\":\"/docs\",\"file_size\":4,\"file_hash\":\"$(printf form | sha256sum | cut -d' ' -f1)\"}" "$BASE/upload/init")" version_id)" -F chunk_index=0 -F 'chunk_data=form')
code 200 "a chunk as a form" "${auth[@]}" "${form[@]}" "$BASE/upload/chunk"
form=${form[1]#version_id=}
text=$(field "$(json "${auth[@]}" -X POST "$BASE/upload/complete/$form")" file_id)
[[ -n $text ]] || die "a chunk as a form"
moved=$(json "${auth[@]}" -X PUT -H "If-Match: $match" -d '{"file_name":"moved.bin","path":"/docs"}' "$BASE/metadata/files/$copy")
[[ $(field "$moved" file_path) == /docs/moved.bin && $(field "$moved" file_id) == "$copy" ]] || die "moved: $moved"
code 412 "a change of what changed since" "${auth[@]}" "${js[@]}" -X PUT -H "If-Match: $match" -d '{"file_name":"x"}' "$BASE/metadata/files/$copy"
code 409 "a name that is taken" "${auth[@]}" "${js[@]}" -X PUT -d '{"file_name":"form.txt"}' "$BASE/metadata/files/$copy"
code 422 "a name that is none" "${auth[@]}" "${js[@]}" -X PUT -d '{"file_name":"../x"}' "$BASE/metadata/files/$copy"
code 404 "a move to nowhere" "${auth[@]}" "${js[@]}" -X PUT -d '{"path":"/nowhere"}' "$BASE/metadata/files/$copy"
[[ $(json "${auth[@]}" "$BASE/metadata/files?path=/docs") == *moved.bin* ]] || die "it is listed where it is"
[[ $(json "${auth[@]}" "$BASE/sync/delta?since=$cursor") == *moved.bin* ]] || die "the delta tells the move"

say versions
printf 'form, second' >second.txt
init=$(json "${auth[@]}" -d "{\"file_name\":\"form.txt\",\"path\":\"/docs\",\"file_size\":12,\"file_hash\":\"$(sha256sum second.txt | cut -d' ' -f1)\"}" "$BASE/upload/init")
second=$(field "$init" version_id)
code 200 "a raw chunk" "${auth[@]}" -X PUT --data-binary @second.txt "$BASE/upload/$second/chunks/0"
[[ $(field "$(json "${auth[@]}" -X POST "$BASE/upload/complete/$second")" file_id) == "$text" ]] || die "the same place is the same file"
versions=$(json "${auth[@]}" "$BASE/api/v1/files/$text/versions")
[[ $(python3 -c 'import json,sys; v=json.loads(sys.argv[1])["versions"]; print(len(v), v[0]["version_id"], v[0]["is_current"], v[1]["is_current"])' "$versions") == "2 $second True False" ]] || die "versions: $versions"
[[ $(curl -sS --fail "${auth[@]}" "$BASE/download/$text") == 'form, second' ]] || die "the newest version"
[[ $(curl -sS --fail "${auth[@]}" "$BASE/download/$text?version=$form") == form ]] || die "an older version"
code 404 "a version of another file" "${auth[@]}" "$BASE/download/$text?version=$version"

say "storage used and its limit"
usage=$(json "${auth[@]}" "$BASE/api/v1/me/usage")
used=$(field "$usage" storage_used) limit=$(field "$usage" storage_limit)
[[ $used == $((size + 4 + 12)) ]] || die "used: $usage"
if [[ -n $limit ]]; then
    over="{\"file_name\":\"over\",\"file_size\":$((limit - used + 1)),\"file_hash\":\"$(printf over | sha256sum | cut -d' ' -f1)\"}"
    code 413 "more than the limit" "${auth[@]}" "${js[@]}" -d "$over" "$BASE/upload/init"
    [[ $(field "$(cat answer.json)" code) == quota_exceeded && $(field "$(cat answer.json)" used_bytes) == "$used" && $(field "$(cat answer.json)" limit_bytes) == "$limit" ]] ||
        die "it says how much there is: $(cat answer.json)"
    [[ $(json "${auth[@]}" "$BASE/api/v1/me/usage") == "$usage" ]] || die "nothing is half stored"
fi

say "wrong bytes are refused"
bad=$(json "${auth[@]}" -d "{\"file_name\":\"bad.bin\",\"file_size\":5,\"file_hash\":\"$(printf hello | sha256sum | cut -d' ' -f1)\"}" "$BASE/upload/init")
id=$(field "$bad" version_id)
code=$(status "${auth[@]}" -H 'Content-Type: application/json' -d "{\"version_id\":\"$id\",\"chunk_index\":0,\"chunk_data\":\"$(printf jello | base64)\"}" "$BASE/upload/chunk")
if [[ $code == 2* ]]; then
    code=$(status "${auth[@]}" -X POST "$BASE/upload/complete/$id")
fi
[[ $code == 4* ]] || die "wrong bytes were taken: $code"
code 400 "malformed JSON" "${auth[@]}" "${js[@]}" -d '{"file_name":' "$BASE/upload/init"
code 422 "a hash of zeros" "${auth[@]}" "${js[@]}" -d "{\"file_name\":\"x\",\"file_size\":1,\"file_hash\":\"$(printf '0%.0s' {1..64})\"}" "$BASE/upload/init"
code 200 "a hash that is said at the end" "${auth[@]}" "${js[@]}" -d '{"file_name":"x","file_size":1}' "$BASE/upload/init"
code 422 "a negative size" "${auth[@]}" "${js[@]}" -d "{\"file_name\":\"x\",\"file_size\":-1,\"file_hash\":\"$hash\"}" "$BASE/upload/init"
code 422 "a hash that is none" "${auth[@]}" "${js[@]}" -d '{"file_name":"x","file_size":1,"file_hash":"abc"}' "$BASE/upload/init"
code 422 "bytes that are no base64" "${auth[@]}" "${js[@]}" -d "{\"version_id\":\"$id\",\"chunk_index\":0,\"chunk_data\":\"***\"}" "$BASE/upload/chunk"
code 422 "a chunk that there is not" "${auth[@]}" "${js[@]}" -d "{\"version_id\":\"$id\",\"chunk_index\":7,\"chunk_data\":\"aGVsbG8=\"}" "$BASE/upload/chunk"
code 404 "an upload that there is not" "${auth[@]}" -X POST "$BASE/upload/complete/00000000-0000-4000-8000-000000000000"
code 204 "giving an upload up" "${auth[@]}" -X DELETE "$BASE/upload/$id"
code 404 "an address that there is not" "${auth[@]}" "$BASE/nothing"
code 405 "a method that there is not" "${auth[@]}" -X PUT "$BASE/upload/init"

say "delete, trash and restore"
docs=$(python3 -c 'import json,sys; print(next(f["file_id"] for f in json.loads(sys.argv[1])["files"] if f["kind"] == "directory"))' "$(json "${auth[@]}" "$BASE/metadata/files")")
code 200 "delete a file" "${auth[@]}" -X DELETE "$BASE/metadata/files/$file"
code 404 "what was deleted" "${auth[@]}" "$BASE/metadata/files/$file"
code 404 "a download of what was deleted" "${auth[@]}" "$BASE/download/$file"
code 200 "delete a directory" "${auth[@]}" -X DELETE "$BASE/metadata/files/$docs"
list=$(json "${auth[@]}" "$BASE/metadata/files")
[[ $list != *file.bin* && $list != *moved.bin* ]] || die "what was deleted is listed: $list"
delta=$(json "${auth[@]}" "$BASE/sync/delta?since=$cursor")
[[ $(python3 -c 'import json,sys; print(sum(c["is_deleted"] for c in json.loads(sys.argv[1])["changes"]))' "$delta") == 4 ]] || die "the delta tells deletions: $delta"
[[ $(json "${auth[@]}" "$BASE/api/v1/trash") == *file.bin* ]] || die "it lies in the trash"
back=$(json "${auth[@]}" -d "{\"file_id\":\"$docs\"}" "$BASE/api/v1/trash/restore")
[[ $(field "$back" restored) == 3 && $(field "$back" file_path) == /docs ]] || die "the directory comes back with its files: $back"
json "${auth[@]}" -d "{\"file_id\":\"$file\"}" "$BASE/api/v1/trash/restore" >/dev/null
curl -sS --fail "${auth[@]}" "$BASE/download/$file" | cmp - file.bin || die "what came back differs"
curl -sS --fail "${auth[@]}" "$BASE/download/$copy" | cmp - file.bin || die "what came back with its directory differs"

say "log out"
code 204 "log out" "${auth[@]}" -X POST "$BASE/auth/logout"
code 401 "a token after that" "${auth[@]}" "$BASE/auth/me"
echo "all flows work"
