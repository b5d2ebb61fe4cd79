package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"
)

// What a gateway takes in one batch.
const (
	batchLines = 1000
	batchBytes = 1 << 20
)

// company is how long the first line of a batch waits for more: unnoticed by a person who
// follows a log, and enough for a program that writes line by line to fill batches.
const company = 20 * time.Millisecond

// inputLine is a line of stdin, without its end.
type inputLine struct {
	number int
	text   []byte
	err    error // why there is no line, and no further one
}

// readLines hands out the lines of r; the channel is closed behind the last one. Nothing
// can interrupt a read of stdin: if ctx ends first, the goroutine ends with that read, or
// with the process.
func readLines(ctx context.Context, r io.Reader) <-chan inputLine {
	lines := make(chan inputLine, batchLines)
	go func() {
		defer close(lines)
		scan := bufio.NewScanner(r)
		scan.Buffer(make([]byte, 0, 64<<10), batchBytes)
		hand := func(l inputLine) bool {
			select {
			case lines <- l:
				return true
			case <-ctx.Done():
				return false
			}
		}
		number := 1
		for ; scan.Scan(); number++ {
			if !hand(inputLine{number: number, text: bytes.Clone(scan.Bytes())}) {
				return
			}
		}
		if err := scan.Err(); err != nil {
			hand(inputLine{number: number, err: err})
		}
	}()
	return lines
}

// batch is a body under way. It is filled and sent in turns by one goroutine.
type batch struct {
	cmd         *sendCmd
	key         string
	body        bytes.Buffer
	lines       int
	first, last int    // numbers of its lines
	spare       []byte // a line that did not fit into the last batch, as it goes out
	spareNumber int
}

func (b *batch) reset() {
	b.body.Reset()
	b.lines = 0
}

// fill takes lines until the batch is full or the input pauses; the first one it waits for.
// ended says that there are no more; an error is of the line behind those in the batch.
func (b *batch) fill(ctx context.Context, in <-chan inputLine) (ended bool, err error) {
	if b.spare != nil {
		b.put(b.spare, b.spareNumber)
		b.spare = nil
	}
	var pause <-chan time.Time // nil, so never, until there is a line that waits for company
	for b.lines < batchLines {
		if b.lines > 0 && pause == nil {
			timer := time.NewTimer(company)
			defer timer.Stop()
			pause = timer.C
		}
		select {
		case l, more := <-in:
			if !more {
				return true, nil
			}
			full, err := b.add(l)
			if full || err != nil {
				return false, err
			}
		case <-pause:
			return false, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return false, nil
}

// add puts a line into the batch, or into spare if the batch is full.
func (b *batch) add(l inputLine) (full bool, err error) {
	text, err := b.encode(l)
	if err != nil || text == nil {
		return false, err
	}
	if b.body.Len()+len(text) > batchBytes {
		b.spare, b.spareNumber = text, l.number
		return true, nil
	}
	b.put(text, l.number)
	return false, nil
}

func (b *batch) put(text []byte, number int) {
	if b.lines == 0 {
		b.first = number
	}
	b.body.Write(text)
	b.lines++
	b.last = number
}

// encode makes a line of a batch out of a line of stdin; nil if there is nothing to send.
func (b *batch) encode(l inputLine) ([]byte, error) {
	switch {
	case errors.Is(l.err, bufio.ErrTooLong):
		return nil, errLongLine(l.number)
	case l.err != nil:
		return nil, fmt.Errorf("reading line %d: %w", l.number, l.err)
	case b.cmd.JSONLines && len(bytes.TrimSpace(l.text)) == 0:
		return nil, nil
	case b.cmd.JSONLines && !json.Valid(l.text):
		return nil, fmt.Errorf("line %d is not JSON; without --json-lines lines are sent as text", l.number)
	case !utf8.Valid(l.text):
		return nil, fmt.Errorf("line %d is not UTF-8", l.number)
	}
	entry := struct {
		Data any    `json:"data"`
		Type string `json:"type,omitempty"`
		Key  string `json:"key,omitempty"`
	}{Data: string(l.text), Type: b.cmd.Type}
	if b.cmd.JSONLines {
		entry.Data = json.RawMessage(l.text)
	}
	if !b.cmd.Ephemeral {
		entry.Key = b.key + "-" + strconv.Itoa(l.number)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(entry); err != nil {
		return nil, fmt.Errorf("line %d: %w", l.number, err)
	}
	if out.Len() > batchBytes {
		return nil, errLongLine(l.number)
	}
	return out.Bytes(), nil
}

func errLongLine(number int) error {
	return fmt.Errorf("line %d is longer than %s, which no gateway takes", number, size(batchBytes))
}
