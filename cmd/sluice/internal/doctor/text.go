package doctor

import (
	"fmt"
	"strings"
)

const width = 100

// String is the finding for people, on some lines: what was seen, what it
// means, and if there is something to do, what.
func (f Finding) String() string {
	var b strings.Builder
	level := string(f.Level)
	if f.Level == Bad {
		level = "BAD"
	}
	wrap(&b, fmt.Sprintf("%-5s%-12s", level, f.Check), f.Seen)
	indent := strings.Repeat(" ", 5)
	wrap(&b, indent+"  means:    ", f.Means)
	if f.Do != "" {
		wrap(&b, indent+"  do:       ", f.Do)
	}
	return b.String()
}

// wrap prints text behind a label, on as many lines as it takes.
func wrap(b *strings.Builder, label, text string) {
	b.WriteString(label)
	column := len(label)
	for i, word := range strings.Fields(text) {
		if i > 0 && column+1+len(word) > width {
			b.WriteString("\n" + strings.Repeat(" ", len(label)))
			column = len(label)
		} else if i > 0 {
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	b.WriteByte('\n')
}

// Summary is the report's last word.
func (r *Report) Summary() string {
	count := map[Level]int{}
	for _, f := range r.Findings {
		count[f.Level]++
	}
	text := "the way is good"
	if !r.Good {
		text = "the way is NOT good"
	}
	text += fmt.Sprintf(": %d ok, %d to improve, %d bad", count[OK], count[Warn], count[Bad])
	if len(r.NotDone) > 0 {
		text += "; not looked at: " + strings.Join(r.NotDone, ", ")
	}
	return text
}
