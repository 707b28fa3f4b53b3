"""Reads rows of [text, [[kind, start, end]]] and prints Presidio's recall, precision and speed for the kinds it has."""

import json
import sys
import time
from importlib.metadata import version

import tldextract
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

KINDS = {"EMAIL": "EMAIL_ADDRESS", "PHONE": "PHONE_NUMBER", "FAX": "PHONE_NUMBER", "SSN": "US_SSN", "IBAN": "IBAN_CODE",
         "PAN": "CREDIT_CARD", "URL": "URL", "IP": "IP_ADDRESS", "DATE": "DATE_TIME"}


class Blank(NlpEngine):
    """Patterns only: no model, words split at blanks."""

    def load(self): pass
    def is_loaded(self): return True
    def process_text(self, text, language):
        return NlpArtifacts([], [], [], [word.lower() for word in text.split()], self, language)
    def process_batch(self, texts, language, **_):
        return ((text, self.process_text(text, language)) for text in texts)
    def is_stopword(self, word, language): return False
    def is_punct(self, word, language): return False
    def get_supported_entities(self): return []
    def get_supported_languages(self): return ["en"]


# The list that comes with it: looking for a newer one on the network would be measured.
tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())

rows = json.load(sys.stdin)
registry = RecognizerRegistry()
registry.load_predefined_recognizers(languages=["en"])
engine = AnalyzerEngine(registry=registry, nlp_engine=Blank(), supported_languages=["en"])
entities = sorted(set(KINDS.values()))
start = time.perf_counter()
results = [engine.analyze(text=text, language="en", entities=entities) for text, _ in rows]
seconds = time.perf_counter() - start
found, missed, wrong = {}, {}, 0
for (text, truth), result in zip(rows, results):
    told = {(hit.entity_type, hit.start, hit.end) for hit in result}
    for kind, begin, end in truth:
        if kind in KINDS:
            counts = found if (KINDS[kind], begin, end) in told else missed
            counts[kind] = counts.get(kind, 0) + 1
    right = {(KINDS.get(kind), begin, end) for kind, begin, end in truth}
    wrong += len(told - right)
size = sum(len(text) for text, _ in rows)
print(f"presidio-analyzer {version('presidio-analyzer')}, patterns only: {size / seconds / 1e6:.2f} MB/s, {len(rows)} rows")
for kind in KINDS:
    total = found.get(kind, 0) + missed.get(kind, 0)
    print(f"{kind:16} {found.get(kind, 0) / max(total, 1):.3f}")
hits = sum(found.values())
print(f"{'all':16} {hits / max(hits + sum(missed.values()), 1):.3f}   {hits / max(hits + wrong, 1):.3f}")
