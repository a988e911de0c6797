package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"sigs.k8s.io/gateway-api-conformance-images/echo-basic/grpcechoserver"
)

// Ports that are given one by one.
type ports []int

func (p *ports) String() string { return fmt.Sprint(*p) }

func (p *ports) Set(text string) error {
	port, err := strconv.Atoi(text)
	*p = append(*p, port)
	return err
}

// Serves HTTP/1.1 and h2c, the same over TLS, TCP and gRPC, each at the ports that are asked for.
func serve(args []string) error {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	var plain, secure, tcp, calls ports
	flags.Var(&plain, "port", "HTTP; a port that is also given to --tls is served with TLS only")
	flags.Var(&secure, "tls", "HTTP over TLS")
	flags.Var(&tcp, "tcp", "says everything back")
	flags.Var(&calls, "grpc", "gRPC")
	// The image has a certificate there; here one is made, because nobody verifies it.
	flags.String("crt", "", "ignored")
	flags.String("key", "", "ignored")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if len(plain) == 0 {
		plain = ports{8080}
	}
	isSecure := map[int]bool{}
	for _, port := range secure {
		isSecure[port] = true
	}
	failed := make(chan error)
	start := func(port int, serve func(net.Listener) error) {
		go func() {
			listener, err := net.Listen("tcp", ":"+strconv.Itoa(port))
			if err == nil {
				err = serve(listener)
			}
			failed <- fmt.Errorf("port %d: %w", port, err)
		}()
	}
	for _, port := range plain {
		if !isSecure[port] {
			start(port, httpServer(port).Serve)
		}
	}
	certificate, err := certificate()
	if err != nil {
		return err
	}
	for _, port := range secure {
		server := httpServer(port)
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}}
		start(port, func(listener net.Listener) error { return server.ServeTLS(listener, "", "") })
	}
	for _, port := range tcp {
		start(port, echo)
	}
	for _, port := range calls {
		server := grpc.NewServer()
		grpcechoserver.RegisterGrpcEchoServer(server, calling{})
		start(port, server.Serve)
	}
	return <-failed
}

func httpServer(port int) *http.Server {
	server := &http.Server{Handler: answering(port), Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	return server
}

// Answers requests that came to this port.
type answering int

func (port answering) ServeHTTP(answer http.ResponseWriter, request *http.Request) {
	host, _ := os.Hostname()
	source, _, _ := net.SplitHostPort(request.RemoteAddr)
	fmt.Fprintf(answer, "ServicePort=%d\nHost=%s\nURL=%s\nMethod=%s\nProto=%s\nIP=%s\nHostname=%s\n",
		port, request.Host, request.URL.RequestURI(), request.Method, request.Proto, source, host)
	for name, values := range request.Header {
		for _, value := range values {
			fmt.Fprintf(answer, "RequestHeader=%s:%s\n", name, value)
		}
	}
}

type calling struct {
	grpcechoserver.UnimplementedGrpcEchoServer
}

func (calling) Echo(ctx context.Context, _ *grpcechoserver.EchoRequest) (*grpcechoserver.EchoResponse, error) {
	host, _ := os.Hostname()
	assertions := &grpcechoserver.Assertions{Context: &grpcechoserver.Context{Pod: host}}
	sent, _ := metadata.FromIncomingContext(ctx)
	for name, values := range sent {
		for _, value := range values {
			if name == ":authority" {
				assertions.Authority = value
			} else {
				header := &grpcechoserver.Header{Key: name, Value: value}
				assertions.Headers = append(assertions.Headers, header)
			}
		}
	}
	return &grpcechoserver.EchoResponse{Assertions: assertions}, nil
}

// Says everything back.
func echo(listener net.Listener) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(connection, connection)
			_ = connection.Close()
		}()
	}
}

func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
