package redistest

import (
	"fmt"
	"strings"
)

// setup is what tells kinds of servers apart.
type setup struct {
	sentinel bool
	cluster  bool // needs a bus port
	args     []string
}

// defaults returns what stands before the arguments, so that these win.
func (how setup) defaults() []string {
	if how.sentinel {
		return nil
	}
	// Copies for replicas go over the disk: begun at once, and the replica is fed as
	// soon as it has read its own, not at its next sign of life within 1 s.
	lines := []string{`save ""`, "appendonly no", "enable-debug-command local", "repl-diskless-sync no"}
	if how.cluster {
		// A node does not show a replica that was never sent a byte, and all that an
		// idle master sends is its ping, every 10 s otherwise.
		lines = append(lines, "repl-ping-replica-period 1",
			"cluster-enabled yes", "cluster-config-file nodes.conf", "cluster-announce-ip 127.0.0.1",
			"cluster-node-timeout 1000", "cluster-allow-replica-migration no")
	}
	return lines
}

// directives turns arguments as redis-server takes them (--save "" --maxmemory
// 1mb) into lines of a configuration file. The servers run from a file since
// CONFIG REWRITE and sentinels keep their state in it, so that a server comes
// back from a restart in the role it had.
func directives(args []string) ([]string, error) {
	var lines []string
	for _, a := range args {
		if name, ok := strings.CutPrefix(a, "--"); ok {
			lines = append(lines, name)
			continue
		}
		if len(lines) == 0 {
			return nil, fmt.Errorf("argument %q stands before any directive; write them as \"--appendonly\", \"yes\"", a)
		}
		lines[len(lines)-1] += " " + quote(a)
	}
	return lines, nil
}

// quote prints s as a word of Redis' configuration language, which knows \xHH in
// double quotes and takes all other bytes as they are.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ':
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// valueOf returns what the last directive of that name says, "" if none does.
func valueOf(args []string, name string) string {
	value := ""
	for i, a := range args {
		if a == "--"+name && i+1 < len(args) {
			value = args[i+1]
		}
	}
	return value
}

// fields reads the "name:value" lines of INFO and CLUSTER INFO.
func fields(info string) map[string]string {
	m := make(map[string]string)
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok {
			m[name] = value
		}
	}
	return m
}
