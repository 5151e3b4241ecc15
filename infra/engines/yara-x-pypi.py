# Runs in a process of its own: compiles the rules of a job with the package of a pack, and scans its inputs.
# One JSON value per line goes to the job's file; standard output belongs to what rules print.
import json
import sys
import time

with open(sys.argv[1]) as given:
    job = json.load(given)
sys.path.insert(0, job["pack"] + "/site")
import yara_x  # noqa: E402


# Results bring what the modules saw as JSON, which 1.0.0 writes so that it cannot always be read; it is not used here.
json.JSONDecoder.decode = lambda self, text, *rest: {}


def say(value):
    with open(job["out"], "a") as out:
        out.write(json.dumps(value) + "\n")


def compile_rules():
    compiler = yara_x.Compiler()
    with open(job["rules"], "rb") as source:
        compiler.add_source(source.read().decode("utf-8"))
    if job["apart"] is not None:
        compiler.new_namespace("sigrel")
        compiler.add_source(job["apart"])
    return compiler.build()


try:
    rules = compile_rules()
except MemoryError:  # says nothing about a rule
    raise
except Exception as error:  # the package's own kinds differ between versions
    say({"refused": str(error)})
    sys.exit(0)
try:
    count = len(list(rules))
except TypeError:  # older versions do not count
    count = None
say({"compiled": True, "count": count})
for one in job["inputs"]:
    with open(one["path"], "rb") as file:
        data = file.read()
    started = time.monotonic()
    try:
        scanner = yara_x.Scanner(rules)
        scanner.set_timeout(job["seconds"])
        found = [rule.identifier for rule in scanner.scan(data).matching_rules]
        say({"input": one["name"], "ms": round((time.monotonic() - started) * 1000), "matches": found})
    except Exception as error:
        say({"input": one["name"], "failed": type(error).__name__ + ": " + str(error)})
