#!/usr/bin/python3
"""Answers questions with libunbound, each with a cold cache (packages python3-unbound, libunbound8).

    cold_cache.py CONFIGURATION

Each line of the input is a port of 127.0.0.1, a name and a type's number; each line of the output is the verdict,
the response code, the name at the end of the chain, the records' data in hex, and the reason of a failure, with
tabs between them.
"""

import sys

import unbound

for line in sys.stdin:
    port, name, kind = line.split()
    context = unbound.ub_ctx()
    context.config(sys.argv[1])
    context.set_fwd("127.0.0.1@" + port)
    status, result = context.resolve(name, int(kind), 1)
    if status != 0:
        print("none", -1, "-", "-", unbound.ub_strerror(status), sep="\t", flush=True)
        continue
    why = result.why_bogus or "-"
    if result.bogus:
        verdict = "bogus"
    elif result.rcode not in (0, 3):
        verdict = "none"
    elif result.secure:
        verdict = "secure"
    else:
        verdict = "insecure"
    # Without data, the binding returns a None that it does not own.
    data = ",".join(record.hex() for record in result.rawdata) if result.havedata else "-"
    end = result.canonname or result.qname
    print(verdict, result.rcode, end, data, why.replace("\t", " ").replace("\n", " "), sep="\t", flush=True)
    del result, context
