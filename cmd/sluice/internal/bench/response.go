package bench

import (
	"bytes"
	"errors"
	"strconv"
	"time"
)

var (
	errMalformed = errors.New("malformed response")
	errHeadSize  = errors.New("response head larger than 64 KiB")
)

const maxHead = 64 << 10

// response decodes one HTTP/1.1 response in whatever pieces it comes: the
// head, then the body by length, by chunks or up to the connection's end. It
// allocates nothing for a body. The zero value awaits a head.
type response struct {
	status      int  // 0 until the head is there
	keep        bool // the connection can carry another request afterwards
	eventStream bool // by its content type
	encoded     bool // compressed, or otherwise not as it was written
	retryAfter  time.Duration

	part part
	body part   // what follows the head
	left int64  // bytes of the body or the chunk that are yet to come
	line []byte // of the head or of a chunk's size, what has come so far
}

// part is where in the response the next byte belongs.
type part uint8

const (
	inHead part = iota
	toClose
	inLength
	inSize
	inChunk
	afterChunk
	inTrailer
	complete
)

// bodyTaker is given the body, piece by piece.
type bodyTaker interface{ takeBody(b []byte) error }

// feed consumes b up to the end of the response, and returns what is left.
func (r *response) feed(b []byte, to bodyTaker) (rest []byte, err error) {
	for len(b) > 0 && r.part != complete && err == nil {
		switch r.part {
		case inHead:
			b, err = r.takeHead(b)
		case toClose:
			return nil, to.takeBody(b)
		case inLength, inChunk:
			n := int(min(r.left, int64(len(b))))
			err = to.takeBody(b[:n])
			b = b[n:]
			if r.left -= int64(n); r.left == 0 {
				r.endOfPiece()
			}
		case afterChunk, inSize, inTrailer:
			b, err = r.takeLine(b)
		}
	}
	return b, err
}

func (r *response) endOfPiece() {
	if r.part == inLength {
		r.part = complete
		return
	}
	r.part = afterChunk
}

// takeLine consumes one line of what frames the chunks.
func (r *response) takeLine(b []byte) ([]byte, error) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		if len(r.line)+len(b) > maxHead {
			return nil, errMalformed
		}
		r.line = append(r.line, b...)
		return nil, nil
	}
	line := b[:end]
	if len(r.line) > 0 {
		r.line = append(r.line, line...)
		line = r.line
	}
	err := r.chunkLine(bytes.TrimSuffix(line, []byte{'\r'}))
	r.line = r.line[:0]
	return b[end+1:], err
}

func (r *response) chunkLine(line []byte) error {
	switch r.part {
	case afterChunk:
		if len(line) > 0 {
			return errMalformed
		}
		r.part = inSize
	case inTrailer:
		if len(line) == 0 {
			r.part = complete
		}
	case inSize:
		digits, _, _ := bytes.Cut(line, []byte{';'})
		n, ok := chunkSize(bytes.TrimRight(digits, " \t"))
		if !ok {
			return errMalformed
		}
		if r.left, r.part = n, inChunk; n == 0 {
			r.part = inTrailer
		}
	}
	return nil
}

func chunkSize(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 12 {
		return 0, false
	}
	for _, c := range b {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		n = n<<4 | int64(c)
	}
	return n, true
}

// takeHead consumes the head, or what there is of it.
func (r *response) takeHead(b []byte) ([]byte, error) {
	had := len(r.line)
	head := b
	if had > 0 {
		r.line = append(r.line, b...)
		head = r.line
	}
	from := max(0, had-3)
	end := bytes.Index(head[from:], []byte("\r\n\r\n"))
	if end < 0 {
		if len(head) > maxHead {
			return nil, errHeadSize
		}
		if had == 0 {
			r.line = append(r.line, b...)
		}
		return nil, nil
	}
	end += from
	if err := r.parseHead(head[:end]); err != nil {
		return nil, err
	}
	r.line = nil
	return b[end+4-had:], nil
}

// parseHead reads the head, given without the empty line that ends it.
func (r *response) parseHead(head []byte) error {
	status, fields, _ := bytes.Cut(head, []byte("\r\n"))
	if len(status) < 12 || !bytes.HasPrefix(status, []byte("HTTP/1.")) || status[8] != ' ' {
		return errMalformed
	}
	code, err := strconv.Atoi(string(status[9:12]))
	if err != nil || code < 100 {
		return errMalformed
	}
	if code < 200 {
		return nil // an interim answer; the real head follows
	}
	r.status, r.keep, r.body = code, status[7] != '0', toClose
	for len(fields) > 0 {
		var field []byte
		field, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		name, value, ok := bytes.Cut(field, []byte{':'})
		if !ok {
			return errMalformed
		}
		if err := r.field(name, bytes.TrimSpace(value)); err != nil {
			return err
		}
	}
	r.beginBody()
	return nil
}

func (r *response) field(name, value []byte) error {
	is := func(s string) bool { return len(s) == len(name) && bytes.EqualFold(name, []byte(s)) }
	switch {
	case is("Content-Length"):
		n, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil || n < 0 {
			return errMalformed
		}
		if r.body != inSize { // chunks win over a length
			r.left, r.body = n, inLength
		}
	case is("Transfer-Encoding"):
		if !bytes.EqualFold(value, []byte("chunked")) {
			return errMalformed
		}
		r.left, r.body = 0, inSize
	case is("Connection"):
		r.keep = r.keep && !bytes.EqualFold(value, []byte("close"))
	case is("Content-Type"):
		kind, _, _ := bytes.Cut(value, []byte{';'})
		r.eventStream = bytes.EqualFold(bytes.TrimSpace(kind), []byte("text/event-stream"))
	case is("Content-Encoding"):
		r.encoded = !bytes.EqualFold(value, []byte("identity"))
	case is("Retry-After"):
		if n, err := strconv.ParseUint(string(value), 10, 16); err == nil {
			r.retryAfter = time.Duration(n) * time.Second
		}
	}
	return nil
}

func (r *response) beginBody() {
	if r.status == 204 || r.status == 304 {
		r.left, r.body = 0, inLength
	}
	r.part = r.body
	r.keep = r.keep && r.body != toClose
	if r.part == inLength && r.left == 0 {
		r.part = complete
	}
}
