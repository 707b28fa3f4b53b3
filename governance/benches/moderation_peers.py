"""Scores texts with the peers that are installed: alt-profanity-check, better-profanity.

Reads a JSON list of texts on standard input and writes {name: {"scores": [...], "us": microseconds for one text}} on
standard output. A peer that cannot be imported is left out. Install: pip install alt-profanity-check better-profanity.
"""
import json
import sys
import time


def timed(score, texts):
    for text in texts[:20]:
        score(text)
    start = time.perf_counter()
    scores = [score(text) for text in texts]
    return {"scores": scores, "us": (time.perf_counter() - start) / len(texts) * 1e6}


def peers():
    try:
        from profanity_check import predict_prob

        yield "alt-profanity-check", lambda text: float(predict_prob([text])[0])
    except ImportError:
        pass
    try:
        from better_profanity import profanity

        profanity.load_censor_words()
        yield "better-profanity", lambda text: float(profanity.contains_profanity(text))
    except ImportError:
        pass


texts = json.load(sys.stdin)
json.dump({name: timed(score, texts) for name, score in peers()}, sys.stdout)
