// Package reference writes down what the command line says of itself, for those
// who do not ask it with --help: completions for shells, and the manual page.
//
//	kong's model of the commands -> Completion -> bash, zsh or fish
//	                             -> Manual     -> man
//
// Nothing is said here that the model does not say, so a flag that is added is
// completed and described. Completions are whole scripts: a shell that has read
// one asks the program nothing.
package reference

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// scripts writes the completion for each shell there is one for.
var scripts = map[string]func(*kong.Application) string{"bash": bash, "zsh": zsh, "fish": fish}

// Completion is the script by which a shell completes an application's
// commands, flags and, where they can be known, values.
func Completion(app *kong.Application, shell string) (string, error) {
	script, ok := scripts[shell]
	if !ok {
		return "", fmt.Errorf("there is no completion for %q", shell)
	}
	return script(app), nil
}

// commands are those that people see.
func commands(app *kong.Application) []*kong.Node {
	return slices.DeleteFunc(slices.Clone(app.Children), func(n *kong.Node) bool { return n.Hidden })
}

func names(commands []*kong.Node) []string {
	list := make([]string, len(commands))
	for i, c := range commands {
		list[i] = c.Name
	}
	return list
}

// flags are those of a node itself, without its parent's.
func flags(n *kong.Node) []*kong.Flag {
	return slices.DeleteFunc(slices.Clone(n.Flags), func(f *kong.Flag) bool { return f.Hidden })
}

// spellings are the words that give a flag.
func spellings(f *kong.Flag) []string {
	list := []string{"--" + f.Name}
	if f.Short != 0 {
		list = append(list, "-"+string(f.Short))
	}
	return list
}

// values are the words that a flag or argument can be, if they can be told.
func values(app *kong.Application, v *kong.Value) []string {
	switch {
	case v.Enum != "":
		return v.EnumSlice()
	case v.Tag.Has("commands"):
		return names(commands(app))
	}
	return nil
}

// isFile says whether a value is the name of a file.
func isFile(v *kong.Value) bool {
	return slices.Contains([]string{"path", "existingfile", "existingdir", "filecontent"}, v.Tag.Type)
}

// brief is the first thing that a help says, for a line among others.
func brief(help string) string {
	end := len(help)
	for _, stop := range []string{". ", "; ", ": ", " ("} {
		if i := strings.Index(help, stop); i >= 0 {
			end = min(end, i)
		}
	}
	return strings.TrimSuffix(help[:end], ".")
}
