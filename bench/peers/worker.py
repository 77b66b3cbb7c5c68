"""Times PyTorch's and PEFT's side of the benches, one line of JSON in, one out, so that both sides can take turns.

usage: python worker.py THREADS
  {"do": "setup", "bench": "lora_linear", "args": {...}}   makes works of bench/peers/lora_linear.py; answers its facts
  {"do": "time", "work": "p=0", "repeats": 3}              answers {"ms": of one}
"""
import importlib
import json
import sys
import time

import peft  # with transformers: seconds that go by while the other side sets up
import torch


def main():
    torch.set_num_threads(int(sys.argv[1]))
    if torch.cuda.is_available():
        torch.cuda.init()
    works = {}
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            if ask["do"] == "setup":
                works = {}  # the old ones go before the new ones come
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                works, answer = importlib.import_module(ask["bench"]).setup(**ask["args"])
            else:
                answer = {"ms": timed(works[ask["work"]], ask["repeats"])}
        except Exception as fault:  # the other side tells
            answer = {"error": f"{type(fault).__name__}: {fault}"}
        print(json.dumps(answer), flush=True)


def timed(work, repeats):
    """What is queued on a GPU counts until it is done."""
    settle()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    settle()
    return (time.perf_counter() - start) * 1000 / repeats


def settle():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


main()
