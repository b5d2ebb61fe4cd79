package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"sync/atomic"
	"syscall"
)

// reloadWhenTold reads the configuration again whenever the process is told to
// (SIGHUP), until ctx ends. What cannot be used changes nothing.
func (n *node) reloadWhenTold(ctx context.Context) {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGHUP)
	defer signal.Stop(told)
	for {
		select {
		case <-ctx.Done():
			return
		case <-told:
		}
		changed, stays, err := n.reload(ctx)
		n.gateway.Reloaded(err == nil)
		if err != nil {
			n.logger.Error("everything stays as it is, since the configuration cannot be used", "error", oneLine(err.Error()))
			continue
		}
		n.logger.Info("the configuration, keys and certificate were read again", "changed", changed)
		if len(stays) > 0 {
			n.logger.Warn("these flags have changed, and take a restart to hold", "flags", stays)
		}
	}
}

// reload does it once, and tells the flags that have changed, and those of them
// that stay as they are. First comes all that may fail, then all that changes.
func (n *node) reload(ctx context.Context) (changed, stays []string, err error) {
	line, err := n.process.parse(ctx)
	if err != nil {
		return nil, nil, err
	}
	next := &line.cli.Serve
	if err := next.check(); err != nil {
		return nil, nil, err
	}
	cfg, err := next.gatewayConfig(line.file, n.logger)
	if err != nil {
		return nil, nil, err
	}
	keys, err := next.keys()
	if err != nil {
		return nil, nil, err
	}
	var pair *tls.Certificate
	if next.secure() == n.cmd.secure() {
		if pair, err = loadCertificate(next); err != nil {
			return nil, nil, err
		}
	}
	if n.verifier != nil && next.tokens() {
		if err := n.verifier.Reload(keys); err != nil {
			return nil, nil, err
		}
	}
	if pair != nil {
		n.certificate.now.Store(pair)
	}
	n.level.Set(next.level())
	n.keep.set(next, line.file)
	n.hub.Refit()
	n.gateway.Reload(cfg)
	changed, stays = n.compare(line)
	n.line = line
	return changed, stays, nil
}

// compare tells which flags differ from those that hold now, and which from
// those that only a start can change. It names no value: some are secrets.
func (n *node) compare(next *commandLine) (changed, stays []string) {
	changed, stays = []string{}, []string{}
	now, begun := n.line.flags(), n.begun.flags()
	for name, f := range next.flags() {
		restart := !f.reload ||
			slices.Contains([]string{"tls-cert", "tls-key"}, name) && next.cli.Serve.secure() != n.cmd.secure() ||
			slices.Contains([]string{"jwt-secret", "jwt-key"}, name) && next.cli.Serve.tokens() != n.cmd.tokens()
		switch {
		case restart && !reflect.DeepEqual(f.value, begun[name].value):
			stays = append(stays, name)
		case !restart && !reflect.DeepEqual(f.value, now[name].value):
			changed = append(changed, name)
		}
	}
	if !reflect.DeepEqual(n.line.file.Namespaces, next.file.Namespaces) {
		changed = append(changed, "namespaces")
	}
	slices.Sort(changed)
	slices.Sort(stays)
	return changed, stays
}

// flag is one that was given, or has its default.
type flag struct {
	value  any
	reload bool // it can change while a node runs: it has the tag reload
}

// flags are those of the command, by their names.
func (l *commandLine) flags() map[string]flag {
	flags := map[string]flag{}
	for _, f := range l.command.Selected().Flags {
		flags[f.Name] = flag{value: f.Target.Interface(), reload: f.Tag.Has("reload")}
	}
	return flags
}

// certificate is what TLS is served with. New connections get the newest.
type certificate struct {
	now atomic.Pointer[tls.Certificate]
}

func (c *serveCmd) secure() bool { return c.TLSCert != "" }

func loadCertificate(c *serveCmd) (*tls.Certificate, error) {
	if !c.secure() {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert: %w", err)
	}
	return &pair, nil
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.now.Load(), nil }
