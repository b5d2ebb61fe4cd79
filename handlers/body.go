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

// maxDepth is how deep JSON may be nested.
const maxDepth = 64

// maxBatchBytes is how large a batch may be.
const maxBatchBytes = 1 << 20

// kindOf reads the content type. What curl -d sends without being told
// otherwise counts as nothing in particular.
func kindOf(r *http.Request) (kind, error) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return 0, errMediaType
	}
	header := r.Header.Get("Content-Type")
	if header == "" {
		return kindAny, nil
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

// readBody reads the whole body, within its size and time.
func (g *Gateway) readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Now().Add(g.cfg().BodyTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, err
	}
	body, err := readAll(http.MaxBytesReader(w, r.Body, limit), min(r.ContentLength, limit))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, err
		}
		return nil, errBadBody.with("It ended early, or took too long.")
	}
	if err := rc.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
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
	if err := checkJSON(body); err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if decoder.Decode(v) != nil {
		return errBadBody.with("It is not an object with the members that belong here.")
	}
	return nil
}

// readAll is io.ReadAll for what is likely to have a certain length, which is
// negative if nobody knows.
func readAll(from io.Reader, length int64) ([]byte, error) {
	body := bytes.NewBuffer(make([]byte, 0, max(length, 0)+bytes.MinRead))
	_, err := body.ReadFrom(from)
	return body.Bytes(), err
}

// isJSON says whether data is JSON, or is an error if it claims to be and is not.
func isJSON(data []byte, as kind) (bool, error) {
	switch as {
	case kindText:
		return false, nil
	case kindJSON:
		if err := checkJSON(data); err != nil {
			return false, err
		}
		return true, nil
	}
	start := bytes.TrimLeft(data, " \t\r\n")
	if len(start) == 0 || start[0] != '{' && start[0] != '[' {
		return false, nil
	}
	return checkJSON(data) == nil, nil
}

// checkJSON accepts exactly one JSON value (RFC 8259) that every reader
// understands alike: no name twice in an object, no half of a surrogate pair,
// no number beyond a double's range, and not nested too deep.
func checkJSON(data []byte) error {
	decoder := jsontext.NewDecoder(bytes.NewBuffer(data))
	values := 0
	for {
		token, err := decoder.ReadToken()
		if err == io.EOF && values == 1 {
			return nil
		}
		if err != nil {
			return errBadBody.with("It is not valid JSON, at byte " + strconv.FormatInt(decoder.InputOffset(), 10) + ".")
		}
		if decoder.StackDepth() > maxDepth {
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
