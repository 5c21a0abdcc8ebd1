"""`just bench-sweep`: whole grids here and through an honest PyTorch loop (benches/peers/loop.py), on the same machine.

Usage: sweep.py PROGRAM DUMP GRID.toml ... [--sample N] [--rounds N]. Ours runs from a cold cache, from process start to
report, in turn with the loop. The loop runs a sample of the trials that covers every dataset, network, cut and freeze
depth; its time is scaled up to the grid by those kinds, and the table says so."""

import argparse, json, math, os, resource, shutil, sqlite3, statistics, subprocess, sys, tempfile, threading, time

PEERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers", "loop.py")
MALLOC = {"MALLOC_TOP_PAD_": "67108864", "MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592"}


def memory(pid):
    """Bytes that a process and its children hold, shared pages counted once."""
    total, pids = 0, [pid]
    while pids:
        own = pids.pop()
        try:
            with open(f"/proc/{own}/smaps_rollup") as file:
                total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
            with open(f"/proc/{own}/task/{own}/children") as file:
                pids += [int(child) for child in file.read().split()]
        except OSError:
            pass
    return total


def timed(command, env=None, out=subprocess.DEVNULL):
    """Seconds, peak memory and output of a command."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
    peak, over = [0], threading.Event()

    def watch():
        while not over.wait(0.25):
            peak[0] = max(peak[0], memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    stdout, stderr = process.communicate()
    seconds = time.perf_counter() - start
    over.set()
    watcher.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}\n{stderr}")
    return seconds, peak[0], stdout, stderr


def ours(program, grid, folder):
    """One cold run, and its store."""
    shutil.rmtree(folder, ignore_errors=True)
    db = os.path.join(folder, "grid.sqlite")
    seconds, peak, _, stderr = timed([program, "run", grid, "--db", db])
    said = [line for line in stderr.splitlines() if "forecast" in line]
    return {"seconds": seconds, "memory": peak, "db": db, "said": said}


def stratum(trial):
    return trial["split"].split("-")[0], trial["graph"], trial["cut"], tuple(trial["frozen"])


def scaled(grid, found):
    """The loop's seconds for the whole grid: each kind of trial at the mean of its sample."""
    trials = {trial["key"]: trial for trial in grid["trials"]}
    kinds = {}
    for one in found:
        kinds.setdefault(stratum(trials[one["key"]]), []).append(one["seconds"])
    missing = [trial for trial in grid["trials"] if stratum(trial) not in kinds]
    if missing:
        sys.exit(f"the sample does not cover {len(missing)} trials: raise --sample")
    return sum(statistics.mean(kinds[stratum(trial)]) for trial in grid["trials"])


def compare(db, found):
    """Losses of the same trials on both sides: the largest relative difference, and the accuracies."""
    store = sqlite3.connect(f"file:{db}?mode=ro", uri=True)
    rows = []
    for one in found:
        curve = store.execute("SELECT train_loss, val_loss FROM curve WHERE trial = ? ORDER BY step", (one["key"],)).fetchall()
        accuracy, = store.execute("SELECT test_accuracy FROM trial WHERE key = ?", (one["key"],)).fetchone()
        differences = [abs(a - b) / max(abs(b), 1e-3) for (train, val), t, v in zip(curve, one["train_losses"], one["val_losses"])
                       for a, b in ((train, t), (val, v))]
        rows.append((one["key"][:12], accuracy, one["test_accuracy"], max(differences[:2]), max(differences)))
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("dump")
    parser.add_argument("grids", nargs="+")
    parser.add_argument("--sample", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="tl-sweep-bench-")
    try:
        for grid in arguments.grids:
            bench(arguments, grid, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def bench(arguments, path, folder):
    runs = [ours(arguments.program, path, os.path.join(folder, "cold"))]
    kept = os.path.join(folder, "kept")
    shutil.rmtree(kept, ignore_errors=True)
    shutil.move(os.path.join(folder, "cold"), kept)
    db, dump = os.path.join(kept, "grid.sqlite"), os.path.join(folder, "dump")
    shutil.rmtree(dump, ignore_errors=True)
    timed([arguments.dump, path, db, dump, str(arguments.sample)])
    grid = json.load(open(os.path.join(dump, "grid.json")))
    bound = json.loads(subprocess.run([sys.executable, os.path.join(os.path.dirname(PEERS), "..", "bound.py"),
                                       os.path.join(dump, "grid.json")], check=True, capture_output=True, text=True).stdout)
    plan = json.loads(subprocess.run([arguments.program, "plan", path, "--db", os.path.join(folder, "none.sqlite"), "--format", "json"],
                                     check=True, capture_output=True, text=True).stdout)["macs"]
    start = time.perf_counter()
    _, peak, out, _ = timed([sys.executable, PEERS, dump], MALLOC, subprocess.PIPE)
    found = [json.loads(line) for line in out.splitlines()]
    spent, loop = time.perf_counter() - start, scaled(grid, found)
    for _ in range(arguments.rounds - 1):
        runs.append(ours(arguments.program, path, os.path.join(folder, "cold")))
    seconds = statistics.median(run["seconds"] for run in runs)
    count = len(grid["trials"])
    print(f"\n## {os.path.basename(path)}: {count} trials\n")
    print("| | ours | PyTorch loop |\n|---|---|---|")
    walls = " / ".join(f"{run['seconds']:.1f} s" for run in runs)
    print(f"| wall time | {walls} | {loop:.0f} s, scaled up from {len(found)} trials in {spent:.0f} s |")
    print(f"| trials per hour | {3600 * count / seconds:.0f} | {3600 * count / loop:.0f} |")
    print(f"| peak memory | {runs[0]['memory'] / 1e6:.0f} MB | {peak / 1e6:.0f} MB |")
    print(f"\nfaster by **{loop / seconds:.1f}**; bound by work {bound['bound']:.2f}: {loop / seconds / bound['bound']:.2f} of it")
    print(f"plan's work against bound.py's: shared {plan['shared'] / bound['least']:.4f}, alone {plan['alone'] / bound['loop']:.4f}")
    for line in runs[0]["said"]:
        print(line)
    print("\n| trial | test accuracy here | PyTorch | losses of the first epoch differ by | of all epochs, at most |\n|---|---|---|---|---|")
    for key, own, theirs, first, most in compare(db, found):
        # A trial that diverged was not scored on test.
        own = math.nan if own is None else own
        print(f"| {key} | {own:.4f} | {theirs:.4f} | {first:.1e} | {most:.1e} |")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
