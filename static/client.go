package static

import (
	"bytes"
	"strings"
)

// lean leaves out what only a reader of the source needs: comments, indentation,
// spaces around operators, and ends of lines that end nothing. It relies on how sluice.js is written: a
// comment has a line of its own or comes at the end of one behind " // ", which
// no string has inside; no string goes over several lines, or has another of
// its own kind inside; and regular expressions have no spaces and no quotes.
func lean(source []byte) []byte {
	var out bytes.Buffer
	for line := range strings.Lines(string(source)) {
		line, _, _ = strings.Cut(line, " // ")
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "//") || strings.HasPrefix(line, "/**") {
			continue
		}
		squeeze(&out, line)
		if !strings.ContainsRune("{([,;", rune(line[len(line)-1])) {
			out.WriteByte('\n') // it may end a statement
		}
	}
	return out.Bytes()
}

// squeeze writes a line without the spaces that part nothing. Outside of
// strings only those between two words do, or between two signs that would be
// one: a - -b.
func squeeze(out *bytes.Buffer, line string) {
	var quote byte
	for i := range len(line) {
		c := line[i]
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"' || c == '`':
			quote = c
		case c == ' ' && !parts(line[i-1], line[i+1]):
			continue
		}
		out.WriteByte(c)
	}
}

// parts says whether a space between two characters must stay.
func parts(before, after byte) bool {
	if inWord(before) {
		return inWord(after)
	}
	return before == after && (before == '+' || before == '-')
}

func inWord(c byte) bool {
	return c == '_' || c == '$' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

// toClassic says how a module becomes the inside of a function: a classic
// script can export nothing, and finds its own address elsewhere.
var toClassic = strings.NewReplacer(
	"export function ", "function ",
	"export const ", "const ",
	"import.meta.url", "document.currentScript.src",
)

// classic makes a classic script of the module, with one global: sluice.
func classic(source []byte) []byte {
	return []byte("(()=>{\n" + toClassic.Replace(string(lean(source))) +
		"globalThis.sluice={subscribe,publish,pending,members};\n})()\n")
}
