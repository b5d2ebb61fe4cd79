package reference

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// bashFrame is the script around what is known of the commands: values of
// flags, and words for each command.
const bashFrame = `# bash completion for %[1]s, made by: %[1]s completion bash
_%[1]s() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= i words=
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		%[2]s)
			# Its value is no command, whether it stands behind a space or a =.
			((i++))
			[[ ${COMP_WORDS[i]} != = ]] || ((i++))
			;;
		-*) ;;
		*)
			command=${COMP_WORDS[i]}
			break
			;;
		esac
	done
	COMPREPLY=()
	# bash takes --flag=value apart.
	if [[ $cur == = ]]; then
		cur=
	elif [[ $prev == = ]]; then
		prev=${COMP_WORDS[COMP_CWORD-2]}
	fi
	case $command:$prev in
%[3]s	esac
	if [[ $cur == -* ]]; then
		words='%[4]s'
		case $command in
%[5]s		esac
	else
		case $command in
		'') words='%[6]s' ;;
%[7]s		esac
	fi
	COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _%[1]s %[1]s
`

// bash writes the completion for bash 4 and newer.
func bash(app *kong.Application) string {
	var valued, options, arguments strings.Builder
	before := []string{}
	for _, f := range flags(app.Node) {
		if !f.IsBool() {
			before = append(before, spellings(f)...)
		}
		valued.WriteString(bashValue(app, "*", f))
	}
	for _, c := range commands(app) {
		var own []string
		for _, f := range flags(c) {
			valued.WriteString(bashValue(app, c.Name, f))
			own = append(own, spellings(f)...)
		}
		if len(own) > 0 {
			fmt.Fprintf(&options, "\t\t%s) words+=' %s' ;;\n", c.Name, strings.Join(own, " "))
		}
		for _, p := range c.Positional {
			if list := values(app, p); list != nil {
				fmt.Fprintf(&arguments, "\t\t%s) words='%s' ;;\n", c.Name, strings.Join(list, " "))
			}
		}
	}
	var global []string
	for _, f := range flags(app.Node) {
		global = append(global, spellings(f)...)
	}
	return fmt.Sprintf(bashFrame, app.Name, strings.Join(before, "|"), valued.String(), strings.Join(global, " "),
		options.String(), strings.Join(names(commands(app)), " "), arguments.String())
}

// bashValue says what stands behind a flag that takes a value.
func bashValue(app *kong.Application, command string, f *kong.Flag) string {
	if f.IsBool() {
		return ""
	}
	var patterns []string
	for _, s := range spellings(f) {
		patterns = append(patterns, command+":"+s)
	}
	does := "return"
	if list := values(app, f.Value); list != nil {
		does = fmt.Sprintf(`COMPREPLY=($(compgen -W '%s' -- "$cur")) && return`, strings.Join(list, " "))
	} else if isFile(f.Value) {
		does = "compopt -o default && return" // as bash completes names of files itself
	}
	return fmt.Sprintf("\t%s) %s ;;\n", strings.Join(patterns, "|"), does)
}
