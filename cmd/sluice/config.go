package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Namespace holds what the file says about the rooms of one namespace. What it does not
// say is nil, and follows the flags.
type Namespace struct {
	HistoryEvents   *int           `yaml:"history-events"`   // events the log keeps of a room
	HistoryAge      *time.Duration `yaml:"history-age"`      // for so long after the last one
	Presence        *bool          `yaml:"presence"`         // tokens' streams are members
	Ephemeral       *bool          `yaml:"ephemeral"`        // nothing is kept
	PublicSubscribe *bool          `yaml:"public-subscribe"` // read without a token
	PublicPublish   *bool          `yaml:"public-publish"`   // publish without a token
}

// configFile is what stood in the file of --config; without one it is empty. Commands that
// want the namespaces take a *configFile in their Run.
type configFile struct {
	Path       string
	Namespaces map[string]Namespace
	flags      map[string]fileValue // by the flag's name
}

// fileValue is one flag as the file gives it: a string, or a list of strings as []any.
type fileValue struct {
	line  int
	value any
}

// settings answers for the flags that the command line left open: from the environment,
// else from the file.
type settings struct {
	getenv func(string) string
	file   *configFile
}

// variable is the name of a flag's environment variable.
func variable(flag string) string {
	return "SLUICE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// settable says whether a flag may be given elsewhere than on the command line. One with
// the tag local may not: it says something about this one run, or its name means something
// else to another command.
func settable(flag *kong.Flag) bool {
	return flag.Name != "help" && flag.Name != "version" && !flag.Tag.Has("local")
}

// helpText adds to a flag's help its default, where its placeholder hides that, and the
// variable that sets it.
func helpText(v *kong.Value) string {
	if v.Flag == nil {
		return v.Help
	}
	var notes []string
	if v.Default != "" && v.Flag.PlaceHolder != "" {
		notes = append(notes, "default "+v.Default)
	}
	if settable(v.Flag) {
		notes = append(notes, "$"+variable(v.Name))
	}
	if notes == nil {
		return v.Help
	}
	return fmt.Sprintf("%s (%s)", strings.TrimSuffix(v.Help, "."), strings.Join(notes, ", "))
}

// Validate is a part of kong.Resolver; the file was checked when it was read.
func (s *settings) Validate(*kong.Application) error { return nil }

// Resolve answers the value of a flag, or nil. A value that does not fit its flag is an
// error here rather than in kong, since here it is known where it came from.
func (s *settings) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !settable(flag) {
		return nil, nil
	}
	if text := s.getenv(variable(flag.Name)); text != "" {
		err := fits(flag, text)
		if !utf8.ValidString(text) {
			err = errors.New("it is not UTF-8")
		}
		if err != nil {
			return nil, fmt.Errorf("in the environment, %s: %w", variable(flag.Name), err)
		}
		return text, nil
	}
	v, ok := s.file.flags[flag.Name]
	if !ok {
		return nil, nil
	}
	if err := fits(flag, v.value); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", s.file.Path, v.line, err)
	}
	return v.value, nil
}

// fits tries a value on a flag without setting it.
func fits(flag *kong.Flag, value any) error {
	if _, list := value.([]any); list && !flag.IsSlice() {
		return errors.New("one value is wanted, not a list")
	}
	target := reflect.New(flag.Target.Type()).Elem()
	if target.Kind() == reflect.Pointer {
		target.Set(reflect.New(target.Type().Elem()))
	}
	scan := kong.Scan().PushTyped(value, kong.FlagValueToken)
	return flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: scan}, target)
}

// flagNames is every flag of every command that a file may set.
func flagNames(n *kong.Node) map[string]bool {
	names := map[string]bool{}
	for _, flag := range n.Flags {
		if settable(flag) && flag.Name != "config" {
			names[flag.Name] = true
		}
	}
	for _, child := range n.Children {
		for name := range flagNames(child) {
			names[name] = true
		}
	}
	return names
}

// load reads the file into f. known are the flags that it may set; anything else in it is
// an error that names the key and the line, since a setting that is silently not in force
// is worse than a gateway that does not start.
func (f *configFile) load(path string, known map[string]bool) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	f.Path = path
	return f.parse(text, known)
}

func (f *configFile) parse(text []byte, known map[string]bool) error {
	f.Namespaces = map[string]Namespace{}
	f.flags = map[string]fileValue{}
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		return f.yamlError(err)
	}
	if len(tree.Docs) > 1 {
		return fmt.Errorf("%s: more than one YAML document", f.Path)
	}
	if len(tree.Docs) == 0 || tree.Docs[0].Body == nil {
		return nil
	}
	entries, err := f.entries(tree.Docs[0].Body, "the file")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := f.set(e, known); err != nil {
			return err
		}
	}
	return nil
}

func (f *configFile) set(e entry, known map[string]bool) error {
	if e.key == "namespaces" {
		return f.setNamespaces(e)
	}
	if !known[e.key] {
		return fmt.Errorf("%s:%d: unknown key %q; a key is the name of a flag without its dashes, or namespaces", f.Path, e.line, e.key)
	}
	value, err := plain(e.value)
	if err != nil {
		return fmt.Errorf("%s:%d: %s: %w", f.Path, e.line, e.key, err)
	}
	if value != nil {
		f.flags[e.key] = fileValue{line: e.line, value: value}
	}
	return nil
}

// namespaceName is what may stand before the first colon of a room's name.
var namespaceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.@~-]{0,126}$`)

func (f *configFile) setNamespaces(e entry) error {
	entries, err := f.entries(e.value, e.key)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !namespaceName.MatchString(e.key) {
			return fmt.Errorf("%s:%d: %q is no namespace; it is what stands before the first colon of a room's name", f.Path, e.line, e.key)
		}
		var n Namespace
		if err := f.namespace(e, &n); err != nil {
			return err
		}
		f.Namespaces[e.key] = n
	}
	return nil
}

func (f *configFile) namespace(e entry, n *Namespace) error {
	if _, err := f.entries(e.value, "namespace "+e.key); err != nil {
		return err
	}
	if e.value.Type() == ast.NullType {
		return nil
	}
	if err := yaml.NodeToValue(e.value, n, yaml.Strict()); err != nil {
		return f.yamlError(err)
	}
	if n.HistoryEvents != nil && *n.HistoryEvents < 1 {
		return fmt.Errorf("%s:%d: namespace %s: history-events is less than 1; to keep nothing say ephemeral: true", f.Path, e.line, e.key)
	}
	if n.HistoryAge != nil && *n.HistoryAge <= 0 {
		return fmt.Errorf("%s:%d: namespace %s: history-age is not above 0; to keep nothing say ephemeral: true", f.Path, e.line, e.key)
	}
	return nil
}

// entry is one key of a mapping.
type entry struct {
	key   string
	line  int
	value ast.Node
}

// entries takes a mapping apart; a null counts as an empty one. what names it in errors.
func (f *configFile) entries(n ast.Node, what string) ([]entry, error) {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.NullNode, *ast.CommentGroupNode:
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		return nil, fmt.Errorf("%s:%d: %s must be a mapping (key: value)", f.Path, n.GetToken().Position.Line, what)
	}
	out := make([]entry, 0, len(values))
	for _, v := range values {
		e := entry{key: v.Key.GetToken().Value, line: v.Key.GetToken().Position.Line, value: v.Value}
		if v.Key.IsMergeKey() {
			return nil, fmt.Errorf("%s:%d: merge keys are not understood here", f.Path, e.line)
		}
		out = append(out, e)
	}
	return out, nil
}

// plain makes of a scalar the text it was written as, so that a flag reads the file as it
// would read the command line; of a list, the list of those; of a null, nil.
func plain(n ast.Node) (any, error) {
	switch n := n.(type) {
	case *ast.NullNode:
		return nil, nil
	case *ast.StringNode:
		return n.Value, nil
	case *ast.LiteralNode:
		return n.Value.Value, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, nil
	case *ast.SequenceNode:
		list := make([]any, 0, len(n.Values))
		for _, item := range n.Values {
			v, err := plain(item)
			if _, text := v.(string); !text || err != nil {
				return nil, errors.New("a list may hold plain values only")
			}
			list = append(list, v)
		}
		return list, nil
	}
	return nil, errors.New("a plain value or a list of them is wanted")
}

// yamlError makes one line of an error of the YAML library, which prints pieces of the file.
func (f *configFile) yamlError(err error) error {
	var known yaml.Error
	if errors.As(err, &known) && known.GetToken() != nil {
		return fmt.Errorf("%s:%d: %s", f.Path, known.GetToken().Position.Line, known.GetMessage())
	}
	return fmt.Errorf("%s: %s", f.Path, oneLine(err.Error()))
}

// size is a number of bytes, written as 65536, 64KiB or 1MiB.
type size int64

// units of a size, largest first, so that a size prints in the largest that divides it.
var units = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// UnmarshalText reads a size; only whole numbers of a unit are sizes.
func (s *size) UnmarshalText(text []byte) error {
	digits, unit := string(text), int64(1)
	for _, u := range units {
		if n := len(digits) - len(u.name); n > 0 && strings.EqualFold(digits[n:], u.name) {
			digits, unit = strings.TrimRight(digits[:n], " "), u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n > math.MaxInt64/uint64(unit) {
		return fmt.Errorf("%q is not a size; write it as 65536, 64KiB or 1MiB", text)
	}
	*s = size(int64(n) * unit)
	return nil
}

// MarshalText prints a size as UnmarshalText reads it.
func (s size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s size) String() string {
	for _, u := range units[:len(units)-1] {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}
