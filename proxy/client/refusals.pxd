from proxy.client.conversation cimport Conversation

cpdef object refusal(Conversation session, bytes text, object verdict)
