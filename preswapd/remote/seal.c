/* SPDX-License-Identifier: BSD-3-Clause */
#include "seal.h"

#if !__has_include(<openssl/evp.h>)
#error "preswapd needs OpenSSL's libcrypto and its headers: on Debian or Ubuntu, apt-get install libssl-dev"
#endif
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TAG_BYTES 16u
#define TAG_AT 3u                      /* behind codec and length */
#define NAMES_AT_ONCE 64u

/* With the keys set, so that a page costs no key schedule. */
struct seal_context {
	struct seal_context *next;
	EVP_CIPHER_CTX *pages, *opened, *names;
};

static void put_64(uint8_t *to, uint64_t n)
{
	for (unsigned i = 0; i < 8; i++)
		to[i] = (uint8_t)(n >> 8 * i);
}

/* --- Keys --------------------------------------------------------------------------------------- */

/* What a key is drawn from, beside another key. */
struct origin {
	const uint8_t *key;
	const char *kind;
	const uint8_t *of;
	size_t of_bytes;
};

static bool derive(const struct origin *from, const char *purpose, uint8_t to[SEAL_KEY_BYTES])
{
	uint8_t text[64 + SEAL_OF_MOST];
	int n = snprintf((char *)text, 64, "preswapd %s %s ", from->kind, purpose);

	memcpy(text + n, from->of, from->of_bytes);
	return HMAC(EVP_sha256(), from->key, SEAL_KEY_BYTES, text, (size_t)n + from->of_bytes, to, NULL);
}

static void free_context(struct seal_context *c)
{
	EVP_CIPHER_CTX_free(c->pages);
	EVP_CIPHER_CTX_free(c->opened);
	EVP_CIPHER_CTX_free(c->names);
	free(c);
}

static struct seal_context *new_context(const struct seal *s)
{
	struct seal_context *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->pages = EVP_CIPHER_CTX_new();
	c->opened = EVP_CIPHER_CTX_new();
	c->names = EVP_CIPHER_CTX_new();
	if (c->pages && c->opened && c->names &&
	    EVP_EncryptInit_ex(c->pages, EVP_aes_256_gcm(), NULL, s->pages_key, NULL) == 1 &&
	    EVP_DecryptInit_ex(c->opened, EVP_aes_256_gcm(), NULL, s->pages_key, NULL) == 1 &&
	    EVP_EncryptInit_ex(c->names, EVP_aes_256_ecb(), NULL, s->names_key, NULL) == 1 &&
	    EVP_CIPHER_CTX_set_padding(c->names, 0) == 1)
		return c;
	free_context(c);
	return NULL;
}

static struct seal_context *take_context(struct seal *s)
{
	pthread_mutex_lock(&s->mutex);
	struct seal_context *c = s->idle;
	if (c)
		s->idle = c->next;
	pthread_mutex_unlock(&s->mutex);
	return c ? c : new_context(s);
}

static void give_context(struct seal *s, struct seal_context *c)
{
	pthread_mutex_lock(&s->mutex);
	c->next = s->idle;
	s->idle = c;
	pthread_mutex_unlock(&s->mutex);
}

/* The first context is made here: a libcrypto without these ciphers is found at the start. */
int seal_init(struct seal *s, const uint8_t key[SEAL_KEY_BYTES], const char *kind, const uint8_t *of,
	      size_t of_bytes)
{
	struct origin from = {key, kind, of, of_bytes};

	pthread_mutex_init(&s->mutex, NULL);
	s->idle = NULL;
	if (!derive(&from, "pages", s->pages_key) || !derive(&from, "names", s->names_key) ||
	    !derive(&from, "nonces", s->nonces_key))
		return -ENOMEM;
	s->idle = new_context(s);
	return s->idle ? 0 : -ENOMEM;
}

void seal_destroy(struct seal *s)
{
	while (s->idle) {
		struct seal_context *c = s->idle;
		s->idle = c->next;
		free_context(c);
	}
	OPENSSL_cleanse(s->pages_key, sizeof s->pages_key);
	OPENSSL_cleanse(s->names_key, sizeof s->names_key);
	OPENSSL_cleanse(s->nonces_key, sizeof s->nonces_key);
	pthread_mutex_destroy(&s->mutex);
}

/* --- Pages -------------------------------------------------------------------------------------- */

/* What is authenticated beside the bytes. */
struct bound {
	uint8_t bytes[REMOTE_DEVICE_BYTES + 8 + 8 + TAG_AT];
};

static void bind(struct bound *b, const struct seal_of *of, const uint8_t head[TAG_AT])
{
	memcpy(b->bytes, of->device, REMOTE_DEVICE_BYTES);
	put_64(b->bytes + REMOTE_DEVICE_BYTES, of->page);
	put_64(b->bytes + REMOTE_DEVICE_BYTES + 8, of->version);
	memcpy(b->bytes + REMOTE_DEVICE_BYTES + 16, head, TAG_AT);
}

static void make_nonce(uint8_t nonce[REMOTE_NONCE_BYTES], const struct seal_of *of)
{
	if (of->nonce) {
		memcpy(nonce, of->nonce, REMOTE_NONCE_BYTES);
		return;
	}
	memset(nonce, 0, REMOTE_NONCE_BYTES - 8);
	put_64(nonce + REMOTE_NONCE_BYTES - 8, of->version);
}

static void put_form(uint8_t head[TAG_AT], const struct tmem_packed *p)
{
	head[0] = p->codec;
	head[1] = (uint8_t)p->length;
	head[2] = (uint8_t)(p->length >> 8);
}

int seal_nonce(struct seal *s, const struct seal_of *of, const struct tmem_packed *from,
	       uint8_t nonce[REMOTE_NONCE_BYTES])
{
	uint8_t text[sizeof(struct bound) + TMEM_PAGE], digest[EVP_MAX_MD_SIZE], head[TAG_AT];
	struct bound b;

	put_form(head, from);
	bind(&b, of, head);
	memcpy(text, b.bytes, sizeof b.bytes);
	memcpy(text + sizeof b.bytes, from->bytes, from->length);
	if (!HMAC(EVP_sha256(), s->nonces_key, SEAL_KEY_BYTES, text, sizeof b.bytes + from->length, digest, NULL))
		return -ENOMEM;
	memcpy(nonce, digest, REMOTE_NONCE_BYTES);
	return 0;
}

static bool encrypt(EVP_CIPHER_CTX *c, const struct seal_of *of, const struct tmem_packed *from,
		    uint8_t *head, uint8_t *bytes)
{
	uint8_t nonce[REMOTE_NONCE_BYTES];
	struct bound b;
	int n;

	put_form(head, from);
	bind(&b, of, head);
	make_nonce(nonce, of);
	return EVP_EncryptInit_ex(c, NULL, NULL, NULL, nonce) == 1 &&
	       EVP_EncryptUpdate(c, NULL, &n, b.bytes, sizeof b.bytes) == 1 &&
	       EVP_EncryptUpdate(c, bytes, &n, from->bytes, from->length) == 1 &&
	       EVP_EncryptFinal_ex(c, NULL, &n) == 1 &&
	       EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, head + TAG_AT) == 1;
}

int seal_page(struct seal *s, const struct seal_of *of, const struct tmem_packed *from, uint8_t *head,
	      uint8_t *bytes)
{
	struct seal_context *c = take_context(s);

	if (!c)
		return -ENOMEM;
	bool done = encrypt(c->pages, of, from, head, bytes);
	give_context(s, c);
	return done ? 0 : -ENOMEM;
}

static bool decrypt(EVP_CIPHER_CTX *c, const struct seal_of *of, const uint8_t head[REMOTE_SEAL_BYTES],
		    const uint8_t *bytes, unsigned length, uint8_t *to)
{
	uint8_t nonce[REMOTE_NONCE_BYTES], tag[TAG_BYTES];
	struct bound b;
	int n;

	bind(&b, of, head);
	make_nonce(nonce, of);
	memcpy(tag, head + TAG_AT, TAG_BYTES);
	return EVP_DecryptInit_ex(c, NULL, NULL, NULL, nonce) == 1 &&
	       EVP_DecryptUpdate(c, NULL, &n, b.bytes, sizeof b.bytes) == 1 &&
	       EVP_DecryptUpdate(c, to, &n, bytes, (int)length) == 1 &&
	       EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, tag) == 1 &&
	       EVP_DecryptFinal_ex(c, NULL, &n) == 1;
}

int seal_open(struct seal *s, const struct seal_of *of, const uint8_t head[REMOTE_SEAL_BYTES],
	      const uint8_t *bytes, unsigned length, uint8_t *to, struct tmem_packed *found)
{
	if (length > TMEM_PAGE || length != (unsigned)(head[1] | head[2] << 8))
		return -EBADMSG;
	struct seal_context *c = take_context(s);
	if (!c)
		return -ENOMEM;
	bool done = decrypt(c->opened, of, head, bytes, length, to);
	give_context(s, c);
	if (!done)
		return -EBADMSG;
	*found = (struct tmem_packed){to, (uint16_t)length, head[0]};
	return 0;
}

/* --- Names -------------------------------------------------------------------------------------- */

int seal_names(struct seal *s, const uint64_t *versions, unsigned n, uint8_t *names)
{
	struct seal_context *c = take_context(s);
	bool done = c;

	for (unsigned at = 0, some; done && at < n; at += some) {
		uint8_t plain[NAMES_AT_ONCE * SEAL_NAME_BYTES] = {0};
		int written;
		some = n - at < NAMES_AT_ONCE ? n - at : NAMES_AT_ONCE;
		for (unsigned i = 0; i < some; i++)
			put_64(plain + i * SEAL_NAME_BYTES, versions[at + i]);
		done = EVP_EncryptUpdate(c->names, names + at * SEAL_NAME_BYTES, &written, plain,
					 (int)(some * SEAL_NAME_BYTES)) == 1;
	}
	if (c)
		give_context(s, c);
	return done ? 0 : -ENOMEM;
}
