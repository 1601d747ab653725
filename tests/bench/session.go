package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/encoding/protowire"
)

// The operator's side of a session: just enough to release a plugin and to hear its phase.
// Messages are those of proto/patchbay/session/v1/session.proto, put together by hand.

// phase is the enum of that name.
type phase uint64

const (
	held  phase = 2
	ready phase = 4
)

const installation = "patchbay://bench"

// authority signs what an installation's CA signs.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority() (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	template := template("bench")
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	signed, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return authority{}, err
	}
	certificate, err := x509.ParseCertificate(signed)
	return authority{certificate, key}, err
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
}

// leaf makes a certificate with one URI name.
func (a authority) leaf(uri string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	name, err := url.Parse(uri)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := template("leaf")
	template.URIs, template.DNSNames = []*url.URL{name}, []string{"pod.bench"}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	signed, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	return tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: key}, err
}

// writeIdentity fills the folder that a pod's Secret would.
func (a authority) writeIdentity(folder string) error {
	leaf, err := a.leaf(installation + "/plugin/bench/uid")
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		return err
	}
	for file, block := range map[string]*pem.Block{
		"ca.crt":  {Type: "CERTIFICATE", Bytes: a.certificate.Raw},
		"tls.crt": {Type: "CERTIFICATE", Bytes: leaf.Certificate[0]},
		"tls.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(folder, file), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// session is an attached operator.
type session struct {
	connection *grpc.ClientConn
	stream     grpc.ClientStream
	phases     chan phase
	ended      error // readable once phases is closed
}

func (a authority) attach(ctx context.Context, address string) (*session, error) {
	leaf, err := a.leaf(installation + "/operator")
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.certificate)
	connection, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{leaf}, RootCAs: roots, ServerName: "pod.bench", MinVersion: tls.VersionTLS13,
		})))
	if err != nil {
		return nil, err
	}
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
		"/patchbay.session.v1.Session/Attach", grpc.WaitForReady(true))
	if err != nil {
		connection.Close()
		return nil, fmt.Errorf("attaching to the sidecar: %w", err)
	}
	s := &session{connection: connection, stream: stream, phases: make(chan phase, 64)}
	var hello []byte
	for _, field := range []protowire.Number{1, 2, 3} { // oldest, newest, epoch
		hello = protowire.AppendVarint(protowire.AppendTag(hello, field, protowire.VarintType), 1)
	}
	if err := s.send(1, hello); err != nil {
		connection.Close()
		return nil, err
	}
	go s.listen()
	return s, nil
}

// release lets the plugin start.
func (s *session) release() error { return s.send(3, nil) }

func (s *session) send(field protowire.Number, message []byte) error {
	wrapped := protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), message)
	if err := s.stream.SendMsg(&wrapped); err != nil {
		return fmt.Errorf("speaking to the sidecar: %w", err)
	}
	return nil
}

// await returns once the plugin is in the phase.
func (s *session) await(ctx context.Context, wanted phase) error {
	last := phase(0)
	for {
		select {
		case now, open := <-s.phases:
			if !open {
				return fmt.Errorf("waiting for phase %d: the session ended: %w", wanted, s.ended)
			}
			if last = now; now == wanted {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("waiting for phase %d, last was %d: %w", wanted, last, ctx.Err())
		}
	}
}

func (s *session) listen() {
	defer close(s.phases)
	for {
		var message []byte
		if s.ended = s.stream.RecvMsg(&message); s.ended != nil {
			return
		}
		instance, found := field(message, 2)
		if !found {
			continue
		}
		if number, found := field(instance, 1); found {
			now, _ := protowire.ConsumeVarint(number)
			select {
			case s.phases <- phase(now):
			default: // Nobody waits any more.
			}
		}
	}
}

// field returns the content of a field: the message or text itself, or a number's bytes.
func field(message []byte, wanted protowire.Number) ([]byte, bool) {
	for len(message) > 0 {
		number, kind, length := protowire.ConsumeTag(message)
		if length < 0 {
			return nil, false
		}
		message = message[length:]
		length = protowire.ConsumeFieldValue(number, kind, message)
		if length < 0 {
			return nil, false
		}
		value := message[:length]
		if number == wanted {
			if kind == protowire.BytesType {
				value, _ = protowire.ConsumeBytes(value)
			}
			return value, true
		}
		message = message[length:]
	}
	return nil, false
}

// raw is the codec of messages that are bytes already.
type raw struct{}

func (raw) Marshal(message any) ([]byte, error) {
	content, ok := message.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("marshalling a %T", message)
	}
	return *content, nil
}

func (raw) Unmarshal(data []byte, message any) error {
	content, ok := message.(*[]byte)
	if !ok {
		return fmt.Errorf("unmarshalling into a %T", message)
	}
	*content = append([]byte(nil), data...)
	return nil
}

func (raw) Name() string { return "proto" }
