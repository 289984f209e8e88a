#!/usr/bin/env python3
"""Packs the golden vectors of model.py: one case a line, so that they are small in a repository and a difference can be read.

    PYTHONHASHSEED=0 python3 model.py --vectors N SEED | python3 pack_vectors.py > vectors.jsonl

A case is [a, b, join(a, b), resolve(join(a, b))]. A state is {node: [places, values, context]}:
  place    "COUNTER REPLICA PARENT NAME"                      newest first
  value    "DOT-REPLICA DOT-COUNTER COUNTER REPLICA KIND CONTENT"   content is "-" where there is none
  context  {replica: counter}
A tree is {path: "KIND CONTENT"}.
"""
import json, sys

def place(p): (counter, replica), parent, name = p; return f"{counter} {replica} {parent} {name}"
def value(v): (r, c), ((counter, replica), kind, content) = v; return f"{r} {c} {counter} {replica} {kind} {content or '-'}"
def state(s): return {i: [[place(p) for p in n["places"]], [value(v) for v in n["values"]], n["context"]] for i, n in s.items()}

for case in json.load(sys.stdin):
    tree = {path: f"{kind} {content or '-'}" for path, (kind, content) in sorted(case["tree"].items())}
    print(json.dumps([state(case["a"]), state(case["b"]), state(case["join"]), tree], sort_keys=True, separators=(",", ":")))
