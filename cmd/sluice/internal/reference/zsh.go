package reference

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

const zshFrame = `#compdef %[1]s
# zsh completion for %[1]s, made by: %[1]s completion zsh
_%[1]s() {
	local curcontext=$curcontext context state state_descr line
	typeset -A opt_args
	local -a commands=(
%[2]s	)
	_arguments -C \
%[3]s		'1: :->command' \
		'*:: :->rest'
	case $state in
	command) _describe command commands ;;
	rest)
		case $words[1] in
%[4]s		esac
		;;
	esac
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
	_%[1]s "$@" # it is a file in $fpath
else
	compdef _%[1]s %[1]s # it was read by source
fi
`

// zsh writes the completion for zsh.
func zsh(app *kong.Application) string {
	var described, global, each strings.Builder
	for _, f := range flags(app.Node) {
		fmt.Fprintf(&global, "\t\t%s \\\n", zshFlag(app, f))
	}
	for _, c := range commands(app) {
		fmt.Fprintf(&described, "\t\t%s\n", zshQuote(c.Name+":"+brief(c.Help)))
		fmt.Fprintf(&each, "\t\t%s)\n\t\t\t_arguments", c.Name)
		for _, f := range flags(c) {
			fmt.Fprintf(&each, " \\\n\t\t\t\t%s", zshFlag(app, f))
		}
		for _, f := range flags(app.Node) {
			fmt.Fprintf(&each, " \\\n\t\t\t\t%s", zshFlag(app, f))
		}
		for i, p := range c.Positional {
			place := fmt.Sprint(i + 1)
			if p.IsCumulative() {
				place = "*"
			}
			fmt.Fprintf(&each, " \\\n\t\t\t\t%s", zshQuote(place+":"+zshPlain(p.Name)+":"+zshAction(app, p)))
		}
		each.WriteString("\n\t\t\t;;\n")
	}
	return fmt.Sprintf(zshFrame, app.Name, described.String(), global.String(), each.String())
}

// zshFlag is a flag as _arguments takes it; where there is a short form, both
// are, and rule each other out.
func zshFlag(app *kong.Application, f *kong.Flag) string {
	value, equals := "", ""
	if !f.IsBool() {
		value, equals = ":"+zshPlain(f.FormatPlaceHolder())+":"+zshAction(app, f.Value), "="
	}
	help := "[" + strings.NewReplacer("[", `\[`, "]", `\]`).Replace(brief(f.Help)) + "]" + value
	if f.IsCumulative() {
		return zshQuote("*--" + f.Name + equals + help)
	}
	if f.Short == 0 {
		return zshQuote("--" + f.Name + equals + help)
	}
	both := strings.Join(spellings(f), " ")
	return fmt.Sprintf("'(%s)'{-%c,--%s%s}%s", both, f.Short, f.Name, equals, zshQuote(help))
}

// zshAction says what a value may be; the empty list is what nobody can know.
// (A space would say so, too, but keeps zsh from completing flags in its place.)
func zshAction(app *kong.Application, v *kong.Value) string {
	if list := values(app, v); list != nil {
		return "(" + strings.Join(list, " ") + ")"
	}
	if isFile(v) {
		return "_files"
	}
	return "( )"
}

// zshPlain is text without what ends a part of a specification.
func zshPlain(text string) string { return strings.ReplaceAll(text, ":", `\:`) }

func zshQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
