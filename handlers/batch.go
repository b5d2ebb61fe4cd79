package handlers

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"sluice/fanout"
)

// maxBatch is how many events a batch may have.
const maxBatch = 1000

// batch reads NDJSON: a line {"data":…,"type":…,"key":…} an event. It is
// checked whole, so that what it brings is written in order or not at all.
func (g *Gateway) batch(body []byte, base fanout.Draft) ([]fanout.Draft, error) {
	var drafts []fanout.Draft
	keys := map[string]bool{}
	line := 0
	for text := range bytes.SplitSeq(body, []byte("\n")) {
		line++
		text = bytes.TrimSpace(text)
		if len(text) == 0 {
			continue
		}
		if len(drafts) == maxBatch {
			return nil, errTooLarge.with("A batch may have " + strconv.Itoa(maxBatch) + " events.")
		}
		d, err := g.batchLine(text, base, len(drafts))
		if err != nil {
			return nil, inLine(line, err)
		}
		if d.Key != "" && keys[d.Key] {
			return nil, inLine(line, errBadKey.with("Another line has the same key."))
		}
		keys[d.Key] = true
		drafts = append(drafts, d)
	}
	if len(drafts) == 0 {
		return nil, errBadBody.with("The batch has no events: send a line like {\"data\":\"hello\"} for each.")
	}
	return drafts, nil
}

func inLine(line int, err error) error {
	p := problemOf(err)
	return p.with("Line "+strconv.Itoa(line)+": "+p.detail).and("line", line)
}

func (g *Gateway) batchLine(text []byte, base fanout.Draft, index int) (fanout.Draft, error) {
	if err := checkJSON(text, 1); err != nil {
		return base, err
	}
	var line struct {
		Data *jsontext.Value `json:"data"`
		Type *string         `json:"type"`
		Key  *string         `json:"key"`
	}
	raw := map[string]json.RawMessage{}
	if json.Unmarshal(text, &raw) != nil {
		return base, errBadBody.with("It is not a JSON object.")
	}
	for name, value := range raw {
		var err error
		switch name {
		case "data":
			v := jsontext.Value(value)
			line.Data = &v
		case "type":
			err = json.Unmarshal(value, &line.Type)
		case "key":
			err = json.Unmarshal(value, &line.Key)
		default:
			return base, errBadBody.with("It has a member that is not data, type or key.")
		}
		if err != nil {
			return base, errBadBody.with("Its " + name + " is not a string.")
		}
	}
	return g.lineDraft(base, index, line.Data, line.Type, line.Key)
}

func (g *Gateway) lineDraft(d fanout.Draft, index int, data *jsontext.Value, name, key *string) (fanout.Draft, error) {
	if data == nil {
		return d, errBadBody.with("It has no data.")
	}
	if data.Kind() == '"' {
		var s string
		if json.Unmarshal(*data, &s) != nil {
			return d, errBadBody.with("Its data cannot be read.")
		}
		d.Data, d.JSON = []byte(s), false
	} else {
		d.Data, d.JSON = bytes.Clone(*data), true
	}
	if int64(len(d.Data)) > g.cfg().MaxBody {
		return d, errTooLarge.with("The data of an event may have " + strconv.FormatInt(g.cfg().MaxBody, 10) + " bytes.")
	}
	if name != nil {
		if !fanout.ValidType(*name) {
			return d, errBadType
		}
		d.Type = *name
	}
	switch {
	case key != nil:
		if !validKey(*key) {
			return d, errBadKey
		}
		d.Key = *key
	case d.Key != "":
		d.Key += "." + strconv.Itoa(index)
	}
	return d, nil
}

// validKey: ^[A-Za-z0-9_-]{1,128}$.
func validKey(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

// keyOf reads the header Idempotency-Key, bare or in quotes as a structured
// field has it.
func keyOf(values []string) (string, error) {
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	if quoted, ok := strings.CutPrefix(key, `"`); ok {
		if key, ok = strings.CutSuffix(quoted, `"`); !ok {
			return "", errBadKey
		}
	}
	if len(values) > 1 || !validKey(key) {
		return "", errBadKey
	}
	return key, nil
}
