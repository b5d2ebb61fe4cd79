package reference

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// fish writes the completion for fish.
func fish(app *kong.Application) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# fish completion for %[1]s, made by: %[1]s completion fish\ncomplete -c %[1]s -f\n", app.Name)
	for _, f := range flags(app.Node) {
		fmt.Fprintf(&b, "complete -c %s %s\n", app.Name, fishFlag(app, f))
	}
	for _, c := range commands(app) {
		fmt.Fprintf(&b, "complete -c %s -n __fish_use_subcommand -a %s -d %s\n", app.Name, c.Name, fishQuote(brief(c.Help)))
	}
	for _, c := range commands(app) {
		in := fmt.Sprintf("complete -c %s -n '__fish_seen_subcommand_from %s'", app.Name, c.Name)
		for _, p := range c.Positional {
			if list := values(app, p); list != nil {
				fmt.Fprintf(&b, "%s -a %s\n", in, fishQuote(strings.Join(list, " ")))
			}
		}
		for _, f := range flags(c) {
			fmt.Fprintf(&b, "%s %s\n", in, fishFlag(app, f))
		}
	}
	return b.String()
}

// fishFlag is a flag as complete takes it.
func fishFlag(app *kong.Application, f *kong.Flag) string {
	text := "-l " + f.Name
	if f.Short != 0 {
		text += fmt.Sprintf(" -s %c", f.Short)
	}
	switch list := values(app, f.Value); {
	case f.IsBool():
	case list != nil:
		text += " -x -a " + fishQuote(strings.Join(list, " "))
	case isFile(f.Value):
		text += " -r -F"
	default:
		text += " -x"
	}
	return text + " -d " + fishQuote(brief(f.Help))
}

func fishQuote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(text) + "'"
}
