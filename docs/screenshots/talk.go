package main

// room is where the conversation is held, me who reads the page.
const (
	room = "harbour"
	me   = "Mara Lind"
)

// crew has the page open, too, each in a browser of their own. The last of them
// comes when she has something to say; the second is about to say more.
var crew = []string{"Ines Duarte", "Jonas Weber", "Amina Okafor"}

// line is one thing that is said: by somebody on the page, or, without a name,
// by a program.
type line struct {
	name string
	kind string // type of the event; message if empty
	text string
	json bool
}

// lookedAway is the line from which on I did not look.
const lookedAway = 6

// talk happens at ten, whatever time it is (see clock in look.go).
var talk = []line{
	{name: "Ines Duarte", text: "Morning all. The tide runs early, so the east gate opens at 11:20."},
	{name: "Jonas Weber", text: "The school boats are due at a quarter past. Is that enough?"},
	{name: "Ines Duarte", text: "It is. The skippers know."},
	{name: me, text: "I can hold the footbridge until they are through."},
	{name: "Amina Okafor", text: "Please do! Thirty-one children, and one very excited dog."},
	{name: "Jonas Weber", text: "He has a life jacket?"},
	{name: "Amina Okafor", text: "The best one of us all."},
	{kind: "gauge", text: `{"gate":"east","level":2.41}`, json: true},
	{name: "Ines Duarte", text: "That is the sign. Everybody ready?"},
}
