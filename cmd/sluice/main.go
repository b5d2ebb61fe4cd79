// Command sluice is the gateway and the tools to talk to one.
//
//	main -> run -> kong -> a command's Run
//
// main touches the process: its arguments, streams, environment and signals. run
// is the whole program as a function of those, so that a test, or a child that a
// test started, runs what people run. A command is one struct in the file of its
// name: its fields are its flags, its Run does the work and returns one error.
//
// A flag takes its value from the command line, else from the environment
// (--history-age is SLUICE_HISTORY_AGE), else from the file of --config, else it has its
// default; the tag local keeps a flag to the command line. config.go reads environment and
// file. client.go and stream.go are what the commands that talk to a gateway share.
//
// The exit code is 0 when the work was done, 1 when it failed and 2 when the
// command line, the environment or the file was wrong. An error is one line.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/alecthomas/kong"
)

// cli lists the commands; a command is added by one line here.
type cli struct {
	Config      string      `help:"YAML file with flags by their names, and the settings of namespaces." type:"path" placeholder:"FILE"`
	ShowVersion versionFlag `name:"version" help:"Print the version and exit."`
	ShowHelp    helpFlag    `name:"help" short:"h" help:"Print this help and exit."`

	Serve       serveCmd       `cmd:"" help:"Run a node of the gateway."`
	Tail        tailCmd        `cmd:"" help:"Print the events of rooms as they happen."`
	Send        sendCmd        `cmd:"" help:"Publish events to a room."`
	Token       tokenCmd       `cmd:"" help:"Make tokens, keys and key sets."`
	Bench       benchCmd       `cmd:"" help:"Measure a gateway, and check what it delivers."`
	Doctor      doctorCmd      `cmd:"" help:"Say what the way to a gateway does to a stream."`
	Help        helpCmd        `cmd:"" help:"Print help about a command."`
	Man         manCmd         `cmd:"" help:"Print the manual page."`
	Completion  completionCmd  `cmd:"" help:"Print what makes a shell complete commands and flags."`
	Healthcheck healthcheckCmd `cmd:"" help:"Ask a gateway whether it is ready."`
}

func main() {
	if slices.Contains(os.Args, "serve") { // before anything is parsed, or opened; the others end too soon to gain by it
		oversleep()
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		// The first signal asks for an orderly end; from then on a second one kills.
		first := <-signals
		signal.Stop(signals)
		cancel(signalled{first})
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
}

// signalled is why the program's context ended: it was asked to end.
type signalled struct{ os.Signal }

// Error implements error.
func (s signalled) Error() string { return s.String() }

// Is says that it is no failure.
func (s signalled) Is(err error) bool { return err == context.Canceled }

// process is what a command sees of the process it runs in. stderr is for people: notices,
// warnings, progress; stdout carries only what was asked for.
type process struct {
	args           []string
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
}

// notef tells the person at the terminal something that is not an error of the command, in one line.
func (p *process) notef(format string, args ...any) {
	fmt.Fprintf(p.stderr, "sluice: %s\n", oneLine(fmt.Sprintf(format, args...)))
}

// run is the program: it parses args, runs the command and answers the exit code. It
// blocks until the command has ended; ctx asks a command to end early. A variable of the
// environment that is empty counts as not set.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	p := &process{args: args, stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv}
	err := execute(ctx, p)
	if err == nil || errors.Is(err, errAnswered) {
		return 0
	}
	var usage *usageError
	var parse *kong.ParseError
	switch {
	case errors.As(err, &usage):
		p.notef("%v", err)
		return 2
	case errors.As(err, &parse):
		p.notef("%v (sluice help explains)", err)
		return 2
	}
	p.notef("%v", err)
	return 1
}

func execute(ctx context.Context, p *process) error {
	line, err := p.parse(ctx)
	if err != nil {
		return err
	}
	return line.command.Run()
}

// commandLine is what the arguments, the environment and the file say together.
type commandLine struct {
	cli     *cli
	file    *configFile
	command *kong.Context
}

// parse reads all of them. It may be called again: what it gives is as new as the file.
func (p *process) parse(ctx context.Context) (*commandLine, error) {
	for _, arg := range p.args {
		// kong would put U+FFFD in the place of what is wrong, and say nothing.
		if !utf8.ValidString(arg) {
			return nil, usagef("the argument %s is not UTF-8", strconv.QuoteToASCII(arg))
		}
	}
	line := &commandLine{cli: &cli{}, file: &configFile{}}
	set := &settings{getenv: p.getenv, file: line.file}
	parser, err := kong.New(line.cli,
		kong.Name("sluice"),
		kong.Description("A gateway for room events over plain HTTP: out by Server-Sent Events, in by POST."),
		kong.Writers(p.stdout, p.stderr),
		kong.NoDefaultHelp(),
		kong.ConfigureHelp(kong.HelpOptions{NoExpandSubcommands: true}),
		kong.ValueFormatter(helpText),
		kong.Resolvers(set),
		kong.Bind(p, line, line.file, set),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		return nil, fmt.Errorf("building the command line: %w", err)
	}
	line.command, err = parser.Parse(p.args)
	return line, err
}

// BeforeResolve loads the file of --config, since everything else may stand in it.
func (c *cli) BeforeResolve(ctx *kong.Context, set *settings) error {
	for _, flag := range ctx.Model.Flags {
		if flag.Name != "config" {
			continue
		}
		path, _ := ctx.FlagValue(flag).(string)
		if path == "" {
			path = set.getenv(variable(flag.Name))
		}
		if path != "" {
			return set.file.load(path, flagNames(ctx.Model.Node))
		}
	}
	return nil
}

// usageError is a use of a command that can never work; its exit code is 2.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// errAnswered ends parsing when a flag has said all there is to say.
var errAnswered = errors.New("answered")

type helpFlag bool

// BeforeReset prints the help before anything can be found missing.
func (helpFlag) BeforeReset(ctx *kong.Context) error {
	return errors.Join(errAnswered, ctx.PrintUsage(false))
}

type versionFlag bool

// BeforeReset prints the version before anything can be found missing.
func (versionFlag) BeforeReset(ctx *kong.Context) error {
	fmt.Fprintln(ctx.Stdout, "sluice", version())
	return errAnswered
}

// release is the version that the linker was told: -X main.release=v1.2.3.
var release string

// version is the release, or else what the Go tool recorded when it built this
// program.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(release, "(unknown)")
	}
	text := cmp.Or(release, info.Main.Version)
	if text == "" {
		text = "(devel)"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && !strings.Contains(text, s.Value[:min(12, len(s.Value))]) {
			text += " " + s.Value[:min(12, len(s.Value))]
		}
	}
	return text + " " + info.GoVersion
}

// helpCmd is `sluice help tail`, for those who type that rather than `sluice tail --help`.
type helpCmd struct {
	Command []string `arg:"" optional:"" commands:"" help:"The command to explain."`
}

// Run prints the help of the command that was named, or of all.
func (c *helpCmd) Run(ctx *kong.Context) error {
	_, err := ctx.Kong.Parse(append(c.Command, "--help"))
	return err
}

// oneLine keeps an error from taking more than its line, and a terminal from obeying it.
func oneLine(s string) string {
	return printable(strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), " "))
}
