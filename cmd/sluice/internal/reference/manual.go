package reference

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/alecthomas/kong"
)

// About is what the manual says besides what the model does.
type About struct {
	Version string
	Date    time.Time
	Help    func(*kong.Value) string // what --help says of a flag
	Parts   []Part                   // further sections, in their order
}

// Part is a section: its title, and its paragraphs.
type Part struct {
	Title string
	Text  []string
}

// Manual is an application's manual page, for man.
func Manual(app *kong.Application, about About) string {
	var m manual
	fmt.Fprintf(&m, ".TH %s 1 %s \"%s\"\n", strings.ToUpper(app.Name), about.Date.UTC().Format(time.DateOnly), roff(about.Version))
	m.WriteString(".nh\n.ad l\n") // what people copy is not to be taken apart
	m.macro("SH", "NAME")
	m.line(roff(app.Name) + ` \- ` + roff(strings.TrimSuffix(app.Help, ".")))
	m.macro("SH", "SYNOPSIS")
	m.line(fmt.Sprintf(`\fB%s\fR \fIcommand\fR [\fIflags\fR]`, roff(app.Name)))
	m.macro("SH", "COMMANDS")
	m.line("These flags belong to every command:")
	m.flags(flags(app.Node), about.Help)
	for _, c := range commands(app) {
		m.command(c, about.Help)
	}
	for _, p := range about.Parts {
		m.macro("SH", p.Title)
		for i, text := range p.Text {
			if i > 0 {
				m.macro("PP")
			}
			m.line(roff(text))
		}
	}
	return m.String()
}

// manual is a page that is being written.
type manual struct{ strings.Builder }

// line writes a line of text, which the formatter breaks.
func (m *manual) line(text string) {
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text // or it would be taken for a macro
	}
	m.WriteString(text + "\n")
}

func (m *manual) macro(name string, args ...string) {
	m.WriteString("." + name)
	for _, a := range args {
		fmt.Fprintf(m, ` "%s"`, strings.ReplaceAll(roff(a), `"`, `\(dq`))
	}
	m.WriteString("\n")
}

func (m *manual) command(c *kong.Node, help func(*kong.Value) string) {
	m.macro("SS", c.FullPath())
	use := `\fB` + roff(c.FullPath()) + `\fR`
	for _, p := range c.Positional {
		use += " " + strings.NewReplacer("<", `\fI`, ">", `\fR`).Replace(roff(p.Summary()))
	}
	if len(flags(c)) > 0 {
		use += ` [\fIflags\fR]`
	}
	m.line(use)
	m.macro("PP")
	m.line(roff(c.Help))
	for _, paragraph := range strings.Split(c.Detail, "\n\n") {
		if paragraph != "" {
			m.macro("PP")
			m.line(roff(strings.ReplaceAll(paragraph, "\n", " ")))
		}
	}
	for _, p := range c.Positional {
		m.macro("TP")
		m.line(`\fI` + roff(p.Name) + `\fR`)
		m.line(roff(help(p)))
	}
	m.flags(flags(c), help)
}

func (m *manual) flags(list []*kong.Flag, help func(*kong.Value) string) {
	for _, f := range list {
		name := ""
		if f.Short != 0 {
			name = fmt.Sprintf(`\fB\-%c\fR, `, f.Short)
		}
		name += `\fB\-\-` + roff(f.Name) + `\fR`
		if !f.IsBool() {
			name += `=\fI` + roff(f.FormatPlaceHolder()) + `\fR`
		}
		m.macro("TP")
		m.line(name)
		m.line(roff(help(f.Value)))
	}
}

// roff is text as it is to be seen.
func roff(text string) string {
	var b strings.Builder
	for _, r := range strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", " ").Replace(text) {
		if r < unicode.MaxASCII {
			b.WriteRune(r)
			continue
		}
		fmt.Fprintf(&b, `\[u%04X]`, r)
	}
	return b.String()
}
