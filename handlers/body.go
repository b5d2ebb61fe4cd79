package handlers

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// kind is what a body says it is.
type kind int

const (
	kindAny   kind = iota // nothing in particular: JSON if it is an object or array, else text
	kindText              //
	kindJSON              //
	kindBatch             // NDJSON
)

// maxDepth is how deep the JSON of an event may be nested.
const maxDepth = 64

// maxBatchBytes is how large a batch may be.
const maxBatchBytes = 1 << 20

// usualKinds are the content types as nearly everybody writes them.
var usualKinds = map[string]kind{
	"application/json":                  kindJSON,
	"application/json; charset=utf-8":   kindJSON,
	"text/plain":                        kindText,
	"text/plain;charset=UTF-8":          kindText,
	"text/plain; charset=utf-8":         kindText,
	"application/x-www-form-urlencoded": kindAny,
	"application/x-ndjson":              kindBatch,
}

// kindOf reads the content type. What curl -d sends without being told
// otherwise counts as nothing in particular. A header that comes twice could be
// read in two ways, so each of them counts.
func kindOf(r *http.Request) (kind, error) {
	for _, encoding := range r.Header.Values("Content-Encoding") {
		if encoding != "" && !strings.EqualFold(encoding, "identity") {
			return 0, errMediaType
		}
	}
	header := r.Header.Get("Content-Type")
	if len(r.Header.Values("Content-Type")) > 1 {
		return 0, errMediaType
	}
	if header == "" {
		return kindAny, nil
	}
	if as, usual := usualKinds[header]; usual {
		return as, nil
	}
	media, params, err := mime.ParseMediaType(header)
	if err != nil {
		return 0, errMediaType
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "us-ascii") {
		return 0, errMediaType
	}
	switch {
	case media == "application/x-www-form-urlencoded":
		return kindAny, nil
	case media == "application/x-ndjson":
		return kindBatch, nil
	case media == "application/json", strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json"):
		return kindJSON, nil
	case strings.HasPrefix(media, "text/"):
		return kindText, nil
	}
	return 0, errMediaType
}

// readBody reads the whole body, within its size; its time has begun (bodies).
func (g *Gateway) readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	body, err := readAll(w, r, limit)
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, err
		}
		return nil, errBadBody.with("It ended early, or took too long.")
	}
	if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, err
	}
	if !utf8.Valid(body) {
		return nil, errBadBody.with("It is not valid UTF-8.")
	}
	return body, nil
}

// maxRequest is how large a body may be that is about a stream or a ticket: a
// token fits in.
const maxRequest = 16 << 10

// readJSON reads a body that is a JSON object into v, whose members are all
// that it may have. A body that is empty leaves v as it is.
func (g *Gateway) readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	as, err := kindOf(r)
	if err != nil {
		return err
	}
	if as != kindAny && as != kindJSON {
		return errMediaType.with("Send application/json, in UTF-8 and not compressed.")
	}
	body, err := g.readBody(w, r, maxRequest)
	if err != nil || len(body) == 0 {
		return err
	}
	if err := checkJSON(body, 0); err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if decoder.Decode(v) != nil {
		return errBadBody.with("It is not an object with the members that belong here.")
	}
	return nil
}

// readAll reads as much as the head has said, or, where it does not say or says
// too much, until it is too much.
func readAll(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength < 0 || r.ContentLength > limit {
		return io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	}
	body := make([]byte, r.ContentLength)
	_, err := io.ReadFull(r.Body, body)
	return body, err
}

// isJSON says whether data is JSON, or is an error if it claims to be and is not.
func isJSON(data []byte, as kind) (bool, error) {
	switch as {
	case kindText:
		return false, nil
	case kindJSON:
		if err := checkJSON(data, 0); err != nil {
			return false, err
		}
		return true, nil
	}
	start := bytes.TrimLeft(data, " \t\r\n")
	if len(start) == 0 || start[0] != '{' && start[0] != '[' {
		return false, nil
	}
	return checkJSON(data, 0) == nil, nil
}

// decoders are for use again: what they remember of nesting and names is half
// of the memory that a small body takes.
var decoders sync.Pool

// checkJSON accepts exactly one JSON value (RFC 8259) that every reader
// understands alike: no name twice in an object, no half of a surrogate pair,
// no number beyond a double's range, and not nested too deep. around is how many
// levels stand around the data itself.
func checkJSON(data []byte, around int) error {
	decoder, _ := decoders.Get().(*jsontext.Decoder)
	if decoder == nil {
		decoder = &jsontext.Decoder{}
	}
	decoder.Reset(bytes.NewBuffer(data))
	defer decoders.Put(decoder)
	values := 0
	for {
		token, err := decoder.ReadToken()
		if err == io.EOF && values == 1 {
			return nil
		}
		if err != nil {
			return errBadBody.with("It is not valid JSON, at byte " + strconv.FormatInt(decoder.InputOffset(), 10) + ".")
		}
		if decoder.StackDepth() > maxDepth+around {
			return errBadBody.with("It is nested more than " + strconv.Itoa(maxDepth) + " deep.")
		}
		if token.Kind() == '0' && !representable(token.String()) {
			return errBadBody.with("It has a number beyond the range of a double.")
		}
		if decoder.StackDepth() == 0 {
			values++
		}
		if values > 1 {
			return errBadBody.with("It has more than one JSON value: use application/x-ndjson for a batch.")
		}
	}
}

func representable(number string) bool {
	if len(number) < 300 && !strings.ContainsAny(number, "eE") {
		return true
	}
	f, err := strconv.ParseFloat(number, 64)
	return err == nil && !math.IsInf(f, 0)
}
