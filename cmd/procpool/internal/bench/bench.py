"""The work of procpool bench, done by Python's own pools.

Reads a work from stdin and writes an answer to stdout, a line of JSON each, until stdin ends. The first line of the
output says that it is there. See bench_measures.go for the works and bench_work.go for what each of them is.
"""

import gc
import itertools
import json
import math
import os
import resource
import signal
import sys
import time

clock = time.perf_counter


# The functions that are measured.

def plus_one(i):
    return i + 1


def next_line(line):
    return str(int(line) + 1)


def sum_of(b):
    return len(b) + b[0] + b[-1]


blobs = {}


def blob(size):
    """An object of its own each time: pickle would send the same one once per chunk."""
    if size not in blobs:
        blobs[size] = bytearray(b"x" * size)
    return bytes(blobs[size])


def echo(b):
    return b


def nap(us):
    start = clock()
    time.sleep(us / 1e6)
    return int((clock() - start) * 1e6) + 1


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def memory(_=None, pid="self"):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        sizes = {line.split()[0]: int(line.split()[1]) << 10 for line in f if "kB" in line}
    return [sizes["Rss:"], sizes["Pss:"]]


class Pool:
    """multiprocessing.Pool."""

    def __init__(self, method):
        import multiprocessing

        self.context = multiprocessing.get_context(method)

    def open(self, workers, max_tasks=None):
        return self.context.Pool(workers, maxtasksperchild=max_tasks)

    def close(self, pool):
        pool.terminate()
        pool.join()

    def map(self, pool, f, items, chunk):
        return pool.map(f, items, chunk or None)

    def start_map(self, pool, f, items):
        return pool.map_async(f, items).get

    def imap(self, pool, f, items, chunk):
        return pool.imap(f, items, chunk or 1)

    def apply(self, pool, f, arg):
        return pool.apply(f, (arg,))

    def apply_all(self, pool, f, args):
        return [r.get() for r in [pool.apply_async(f, (a,)) for a in args]]

    def crash(self, pool):
        """Seconds until an error; None if there is none within a second."""
        import multiprocessing

        start = clock()
        try:
            pool.apply_async(die, (0,)).get(1)
        except multiprocessing.TimeoutError:
            return None
        except Exception:
            return clock() - start


class Executor:
    """concurrent.futures.ProcessPoolExecutor."""

    def __init__(self):
        import concurrent.futures.process
        import multiprocessing

        self.futures = concurrent.futures
        self.context = multiprocessing.get_context("fork")

    def open(self, workers):
        return self.futures.ProcessPoolExecutor(workers, self.context)

    def close(self, pool):
        pool.shutdown()

    def map(self, pool, f, items, chunk):
        return list(pool.map(f, items, chunksize=chunk or 1))

    def start_map(self, pool, f, items):
        results = pool.map(f, items)
        return lambda: list(results)

    def apply(self, pool, f, arg):
        return pool.submit(f, arg).result()

    def apply_all(self, pool, f, args):
        return [r.result() for r in [pool.submit(f, a) for a in args]]

    def crash(self, pool):
        start = clock()
        try:
            pool.submit(die, 0).result()
        except self.futures.process.BrokenProcessPool:
            return clock() - start
        raise AssertionError("a task whose worker was killed has a result")


class Wrong(Exception):
    pass


def check(got, want, what="result"):
    if got != want:
        raise Wrong(f"wrong {what}: {str(got)[:60]}, want {str(want)[:60]}")


def sample(seconds, times, f):
    """What f takes, the shortest first; done until that has taken so long, and so many times at least (in a short round in proportion)."""
    times = max(1, int(times * min(1, seconds / 0.25)))
    took = []
    while len(took) < times or sum(took) < seconds:
        took.append(f())
    return sorted(took)


def percentile(took, p):
    return took[max(0, math.ceil(p / 100 * len(took)) - 1)]


MANY, FEW = 200, 5  # samples of a latency


class Side:
    def __init__(self, kind):
        self.kind = kind
        self.pool = None
        self.blobs = []

    def kept(self, w):
        if self.pool is None:
            self.pool = self.kind.open(w["workers"])
            self.kind.map(self.pool, nap, [1000] * (4 * w["workers"]), 1)
        return self.pool

    def close(self):
        if self.pool is not None:
            self.kind.close(self.pool)

    def rate(self, w, things, f):
        took = sample(w["seconds"], 1, f)
        return {"values": [things * len(took) / sum(took)], "checked": w["items"] * len(took)}

    def latency(self, w, times, f, *percents):
        took = sample(w["seconds"], times, f)
        return {"values": [percentile(took, p) for p in percents], "checked": len(took)}

    def timed_map(self, w, f, items, want, things):
        pool = self.kept(w)

        def once():
            start = clock()
            got = self.kind.map(pool, f, items, w.get("chunk", 0))
            took = clock() - start
            check(got, want)
            return took

        return self.rate(w, things, once)

    def do_map(self, w):
        n = w["items"]
        return self.timed_map(w, plus_one, list(range(n)), list(range(1, n + 1)), n)

    def do_argument(self, w):
        while len(self.blobs) < w["items"]:
            self.blobs.append(bytes([len(self.blobs) % 256]) * w["bytes"])
        return self.timed_map(w, sum_of, self.blobs, [sum_of(b) for b in self.blobs], w["items"] * w["bytes"])

    def do_result(self, w):
        want = [blob(w["bytes"])] * w["items"]
        return self.timed_map(w, blob, [w["bytes"]] * w["items"], want, w["items"] * w["bytes"])

    def do_imap(self, w):
        pool, n = self.kept(w), w["items"]
        items, want = list(range(n)), list(range(1, n + 1))

        def once():
            start = clock()
            got = list(self.kind.imap(pool, plus_one, iter(items), w.get("chunk", 0)))
            took = clock() - start
            check(got, want)
            return took

        return self.rate(w, n, once)

    def do_line_rate(self, w):
        """The same function over the same strings, imap at chunk size 1: what one would use instead."""
        pool, n = self.kept(w), w["items"]
        items, want = [str(i) for i in range(n)], [str(i + 1) for i in range(n)]

        def once():
            start = clock()
            got = list(self.kind.imap(pool, next_line, iter(items), 1))
            took = clock() - start
            check(got, want)
            return took

        return self.rate(w, n, once)

    def do_apply_async(self, w):
        pool, n = self.kept(w), w["items"]
        want = list(range(1, n + 1))

        def once():
            start = clock()
            got = self.kind.apply_all(pool, plus_one, range(n))
            took = clock() - start
            check(got, want)
            return took

        return self.rate(w, n, once)

    def applied(self, pool, i):
        start = clock()
        got = self.kind.apply(pool, plus_one, i)
        took = clock() - start
        check(got, i + 1)
        return took

    def do_apply(self, w):
        pool = self.kept(w)
        return self.latency(w, MANY, lambda: self.applied(pool, 7), 50, 99)

    def do_start_cold(self, w):
        def once():
            start = clock()
            pool = self.kind.open(w["workers"])
            self.applied(pool, 1)
            took = clock() - start
            self.kind.close(pool)
            return took

        return self.latency(w, FEW, once, 50)

    def do_start_warm(self, w):
        pool = self.kept(w)

        def once():
            start = clock()
            got = self.kind.map(pool, plus_one, [0], 0)
            took = clock() - start
            check(got, [1])
            return took

        return self.latency(w, MANY, once, 50, 99)

    def do_fair_queue(self, w):
        pool = self.kept(w)

        def once():
            get = self.kind.start_map(pool, nap, [1000] * w["items"])
            time.sleep(0.02)
            took = self.applied(pool, 3)
            check(sum(us < 1000 for us in get()), 0, "naps")
            return took

        a = self.latency({**w, "seconds": 0}, 1, once, 50)
        a["checked"] *= w["items"] + 1
        return a

    def do_memory_imap(self, w):
        """Leaves its pool behind: there is no other way out of an endless imap."""
        pool = self.kind.open(w["workers"])
        item = blob(w["bytes"])
        self.kind.map(pool, echo, [item] * 100, 0)
        gc.collect()
        idle = memory()[0]
        drawn = itertools.count(1)
        ahead = 0

        def items():
            nonlocal ahead
            for ahead in drawn:
                yield item

        peak, read = 0, 0
        for out in self.kind.imap(pool, echo, items(), 0):
            check(out, item)
            read += 1
            peak = max(peak, memory()[0])
            if read >= 150:
                break
            time.sleep(0.01)
        a = {"values": [max(peak - idle, 0), ahead - read], "checked": read}
        self.kind.close(pool)
        return a

    def do_memory_idle(self, w):
        rss, pss = self.kind.apply(self.kept(w), memory, None)
        return {"values": [None, rss, pss], "checked": 1}

    def do_crash(self, w):
        def once():
            pool = self.kind.open(w["workers"])
            self.applied(pool, 1)
            took = self.kind.crash(pool)
            if took is None:
                self.applied(pool, 2)
            self.kind.close(pool)
            return took

        first = once()
        if first is None:
            return {"values": [None, None], "checked": 1, "note": "no error within a second: the call hangs"}
        return self.latency(w, 4 * FEW, once, 50, 99)

    def do_recycle(self, w):
        def run(pool):
            start = clock()
            naps = self.kind.map(pool, nap, [100] * w["items"], 1)
            return [len(naps) / (clock() - start)], naps

        return self.replacing(w, run)

    def do_recycle_paced(self, w):
        def run(pool):
            results, late = [], []
            start = clock()
            for i in range(w["items"]):
                due = start + i / w["rate"]
                time.sleep(max(0, due - clock()))
                results.append(pool.apply_async(nap, (100,), callback=lambda _, due=due: late.append(clock() - due)))
            naps = [r.get() for r in results]
            return [len(naps) / (clock() - start), percentile(sorted(late), 95)], naps

        return self.replacing(w, run)

    def replacing(self, w, run):
        figures = []
        for max_tasks in None, 25:
            pool = self.kind.open(w["workers"], max_tasks)
            self.kind.map(pool, nap, [100] * w["workers"], 1)
            values, naps = run(pool)
            self.kind.close(pool)
            check(len(naps), w["items"])
            check(all(n >= 100 for n in naps), True)
            figures.append(values)
        (kept, *soon), (replaced, *late) = figures
        return {"values": [kept, replaced, replaced / kept, *soon, *late], "checked": 2 * w["items"]}

    def do_cpu(self, w):
        items = list(range(w["items"]))
        want = list(range(1, w["items"] + 1))

        def run(n):
            before = cpu_time()
            pool = self.kind.open(w["workers"])
            got = self.kind.map(pool, plus_one, items[:n], w.get("chunk", 0))
            self.kind.close(pool)
            check(got, want[:n])
            return cpu_time() - before

        empty, full = run(1), run(len(items))
        return {"values": [max(0, full - empty) / len(items)], "checked": len(items)}


def cpu_time():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def main():
    def say(answer):
        print(json.dumps(answer), flush=True)

    kinds = {"mp.Pool": lambda: Pool("fork"), "mp.Pool (spawn)": lambda: Pool("spawn"), "ProcessPoolExecutor": Executor}
    try:
        side = Side(kinds[sys.argv[1]]())
        side.kind.context.Lock()  # needs what some systems do not have
    except (ImportError, OSError, ValueError) as e:
        say({"error": f"this Python cannot: {type(e).__name__}: {e}"})
        return
    say({"note": sys.version.split()[0]})
    for line in sys.stdin:
        w = json.loads(line)
        gc.collect()
        try:
            say(getattr(side, "do_" + w["do"].replace("-", "_"))(w))
        except Exception as e:
            say({"error": f"{type(e).__name__}: {e}"})
    side.close()


if __name__ == "__main__":
    main()
