"""Draws lines of text as a terminal window, in SVG.

    cargo xtask demo 2>&1 | tee demo.txt        (or any output)
    python docs/images/terminal.py < demo.txt > docs/images/demo.svg

A line that begins with "$ " is drawn as a command. Bars and the words after "trained" stand out.
"""
import html
import re
import sys

SIZE, LINE, ADVANCE, PAD, BAR = 13, 18, 7.83, 18, 34


def spans(line):
    """(class, text) of one line."""
    if line.startswith("$ "):
        return [("prompt", "$ "), ("command", line[2:])]
    bar = re.match(r"(.*?)(█+)(\s*)$", line)
    if bar:
        return [("", bar[1]), ("bar best" if "trained" in line and "untrained" not in line else "bar", bar[2])]
    told = re.match(r"(\s+)(trained|untrained)(\s+\d+  )(.*)$", line)
    if told:
        return [("", told[1]), ("word" if told[2] == "trained" else "dim", told[2]), ("rank", told[3]), ("", told[4])]
    if " → " in line:
        history, target = line.rsplit(" → ", 1)
        return [("dim", history + " → "), ("target", target)]
    return [("", line)]


def main():
    lines = [line.rstrip() for line in sys.stdin.read().rstrip().split("\n")]
    width = round(2 * PAD + ADVANCE * max(map(len, lines)))
    height = BAR + 2 * PAD + LINE * (len(lines) - 1)
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">')
    print("<style>text{font:%dpx ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#d8dee9;white-space:pre}"
          ".prompt{fill:#7ec699}.command{fill:#fff;font-weight:600}.dim{fill:#8b95a7}.bar{fill:#5b7aa8}.best{fill:#7ec699}"
          ".word{fill:#7ec699}.rank{fill:#e5c07b}.target{fill:#fff}</style>" % SIZE)
    print(f'<rect width="{width}" height="{height}" rx="8" fill="#1b1f27"/>')
    for place, colour in enumerate(("#ff5f57", "#febc2e", "#28c840")):
        print(f'<circle cx="{PAD + 18 * place}" cy="17" r="5.5" fill="{colour}"/>')
    for number, line in enumerate(lines):
        y = BAR + PAD + LINE * number - 4
        column = 0
        for kind, text in spans(line):
            if kind.startswith("bar"):
                x, bar = PAD + ADVANCE * column, ADVANCE * len(text)
                print(f'<rect x="{x:.1f}" y="{y - 11}" width="{bar:.1f}" height="13" rx="1.5" class="{kind}"/>')
            elif text.strip():
                length = f' textLength="{ADVANCE * len(text):.1f}" lengthAdjust="spacingAndGlyphs"'
                print(f'<text x="{PAD + ADVANCE * column:.1f}" y="{y}" class="{kind}"{length}>{html.escape(text)}</text>')
            column += len(text)
    print("</svg>")


main()
