package static

import (
	"bytes"
	"strings"
)

// lean leaves out what only a reader of the source needs: comments and
// indentation. It relies on how sluice.js is written: a comment has a line of
// its own or comes at the end of one behind " // ", which no string has inside,
// and no string goes over several lines.
func lean(source []byte) []byte {
	var out bytes.Buffer
	for line := range strings.Lines(string(source)) {
		line, _, _ = strings.Cut(line, " // ")
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "//") || strings.HasPrefix(line, "/**") {
			continue
		}
		out.WriteString(line + "\n")
	}
	return out.Bytes()
}

// toClassic says how a module becomes the inside of a function: a classic
// script can export nothing, and finds its own address elsewhere.
var toClassic = strings.NewReplacer(
	"\nexport function ", "\nfunction ",
	"\nexport const ", "\nconst ",
	"import.meta.url", "document.currentScript.src",
)

// classic makes a classic script of the module, with one global: sluice.
func classic(source []byte) []byte {
	return []byte("(() => {\n" + toClassic.Replace(string(lean(source))) +
		"globalThis.sluice = { subscribe, publish, members };\n})();\n")
}
