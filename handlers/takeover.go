package handlers

import (
	"bytes"
	"net"
	"net/http"
	"time"
)

// takeOver takes the connection of a request from the server, so that a stream
// on it costs neither a goroutine nor the server's buffers. It says no, and
// leaves everything as it was, where that is not possible: HTTP/2 and TLS have
// connections of their own, and HTTP/1.0 has too many peculiarities.
//
// What the client sent behind its request is dropped: nothing belongs there.
func takeOver(w http.ResponseWriter, r *http.Request) (net.Conn, bool) {
	if r.TLS != nil || r.ProtoMajor != 1 || r.ProtoMinor != 1 {
		return nil, false
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	return conn, err == nil
}

// responseHead is the head of a stream's response, as it goes over a
// connection that was taken over. The connection ends with the stream.
func (g *Gateway) responseHead(header http.Header) []byte {
	var b bytes.Buffer
	b.Grow(512)
	b.WriteString("HTTP/1.1 200 OK\r\nConnection: close\r\nDate: ")
	b.Write(time.Now().UTC().AppendFormat(b.AvailableBuffer(), http.TimeFormat))
	if g.terms.Chunked {
		b.WriteString("\r\nTransfer-Encoding: chunked")
	}
	b.WriteString("\r\n")
	_ = header.Write(&b) // a Buffer takes everything
	b.WriteString("\r\n")
	return b.Bytes()
}
